"""The checks of an audit, one subject per file; each is a function of a `Subject` that yields findings."""
