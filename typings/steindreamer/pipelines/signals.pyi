from pipelines.signals import *
