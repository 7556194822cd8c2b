from pipelines.laboratory.compare_cli import *
