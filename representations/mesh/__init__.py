"""Trainable triangle meshes: DMTet, textured meshes, differentiable rasterization, and readers of mesh files."""
