from pipelines.laboratory.contenders import *
