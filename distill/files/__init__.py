"""Model files: digests, JSON, safetensors and the user's cache."""
