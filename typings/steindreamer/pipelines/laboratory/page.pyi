from pipelines.laboratory.page import *
