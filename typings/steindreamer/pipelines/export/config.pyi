from pipelines.export.config import *
