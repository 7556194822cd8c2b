from pipelines.export.maps import *
