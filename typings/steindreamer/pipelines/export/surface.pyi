from pipelines.export.surface import *
