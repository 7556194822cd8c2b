from pipelines.yaml_text import *
