from pipelines.composing import *
