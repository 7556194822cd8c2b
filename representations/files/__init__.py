"""Safe file access: atomic writes, and reads of regular files only."""
