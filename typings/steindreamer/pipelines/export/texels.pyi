from pipelines.export.texels import *
