"""Adapters to other 3D libraries: `interop.pytorch3d` and `interop.kaolin`.

Both libraries are optional and imported only when a function is called; see docs/optional_packages.md for installation.
"""
