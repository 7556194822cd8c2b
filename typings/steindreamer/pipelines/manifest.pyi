from pipelines.manifest import *
