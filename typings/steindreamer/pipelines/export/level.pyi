from pipelines.export.level import *
