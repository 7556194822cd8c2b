from pipelines.export.page import *
