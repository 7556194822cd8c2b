from pipelines.runner import *
