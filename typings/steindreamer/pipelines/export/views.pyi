from pipelines.export.views import *
