from pipelines.export.fidelity import *
