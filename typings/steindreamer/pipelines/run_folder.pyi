from pipelines.run_folder import *
