"""YAML presets: only what differs from the defaults."""
