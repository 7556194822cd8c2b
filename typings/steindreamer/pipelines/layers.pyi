from pipelines.layers import *
