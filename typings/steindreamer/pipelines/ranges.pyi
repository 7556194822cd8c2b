from pipelines.ranges import *
