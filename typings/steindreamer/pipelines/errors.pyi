from pipelines.errors import *
