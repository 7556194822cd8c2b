from pipelines.export import *
