"""Settings as dataclasses: reading, merging and validation, independent of their content."""
