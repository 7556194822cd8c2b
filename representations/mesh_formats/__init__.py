"""Readers of mesh formats, one a file; `mesh_file` joins them."""
