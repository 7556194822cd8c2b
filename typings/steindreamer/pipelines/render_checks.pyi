from pipelines.render_checks import *
