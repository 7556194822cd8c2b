from pipelines.cli import *
from pipelines.cli import main as main
