"""Other 3D libraries behind our types: `adapters.pytorch3d` and `adapters.kaolin`.

Both are optional and imported only when a function is called; docs/optional_packages.md says how to get them.
"""
