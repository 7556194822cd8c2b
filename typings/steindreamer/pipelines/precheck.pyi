from pipelines.precheck import *
