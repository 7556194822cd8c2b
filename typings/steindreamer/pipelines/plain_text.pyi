from pipelines.plain_text import *
