"""Finishing of any mesh file as a package for an engine: repair, reduction, maps, levels of detail and colliders."""
