from pipelines.estimators import *
