from pipelines.outline import *
