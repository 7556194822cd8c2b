from pipelines.validation import *
