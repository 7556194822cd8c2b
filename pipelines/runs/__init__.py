"""One run on disk: folder, checkpoints, log, previews and report."""
