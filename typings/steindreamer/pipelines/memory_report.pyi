from pipelines.memory_report import *
