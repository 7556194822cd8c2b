from pipelines.component_checks import *
