from pipelines.export.volume import *
