from pipelines.out_of_memory import *
