from pipelines.laboratory.terminal import *
