"""Network and training of a small image-caption scorer of the world, independent of every prior."""
