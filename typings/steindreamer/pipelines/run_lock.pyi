from pipelines.run_lock import *
