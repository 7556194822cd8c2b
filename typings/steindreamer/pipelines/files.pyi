from pipelines.files import *
