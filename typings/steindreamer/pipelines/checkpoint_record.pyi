from pipelines.checkpoint_record import *
