from pipelines.settings_file import *
