from pipelines.shading import *
