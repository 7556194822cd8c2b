from pipelines.laboratory.probe_cli import *
