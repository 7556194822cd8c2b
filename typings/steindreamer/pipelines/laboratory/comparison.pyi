from pipelines.laboratory.comparison import *
