from pipelines.config import *
