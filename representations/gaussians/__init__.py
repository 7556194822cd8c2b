"""Scenes of 3D Gaussians: parameters, density control, splatting, and files (3DGS `.ply`, glTF)."""
