"""Neural radiance fields and their volume rendering."""
