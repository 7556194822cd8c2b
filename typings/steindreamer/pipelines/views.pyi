from pipelines.views import *
