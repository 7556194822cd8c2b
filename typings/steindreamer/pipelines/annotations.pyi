from pipelines.annotations import *
