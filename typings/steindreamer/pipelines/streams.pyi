from pipelines.streams import *
