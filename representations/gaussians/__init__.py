"""Scenes of 3D Gaussians: parameters, density control, splatting and the 3DGS `.ply` format."""
