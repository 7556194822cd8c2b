from pipelines.run_watchdog import *
