"""Live view of a scene in the browser: of a run while it trains, of a finished run, or of a file."""
