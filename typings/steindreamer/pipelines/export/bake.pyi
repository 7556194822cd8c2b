from pipelines.export.bake import *
