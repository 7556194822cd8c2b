from pipelines.export.cleanup import *
