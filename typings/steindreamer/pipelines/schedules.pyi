from pipelines.schedules import *
