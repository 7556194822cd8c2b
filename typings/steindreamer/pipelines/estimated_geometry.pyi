from pipelines.estimated_geometry import *
