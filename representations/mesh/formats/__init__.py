"""Readers of mesh formats, one per module; `mesh.file` selects the reader."""
