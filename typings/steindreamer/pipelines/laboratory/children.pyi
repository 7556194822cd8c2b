from pipelines.laboratory.children import *
