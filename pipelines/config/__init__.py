"""The configuration of a run, presets, plugins, and the checks before a run starts."""
