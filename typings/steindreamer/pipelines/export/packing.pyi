from pipelines.export.packing import *
