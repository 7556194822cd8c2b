from pipelines.setting_types import *
