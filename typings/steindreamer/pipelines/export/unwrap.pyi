from pipelines.export.unwrap import *
