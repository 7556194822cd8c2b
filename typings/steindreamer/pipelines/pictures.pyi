from pipelines.pictures import *
