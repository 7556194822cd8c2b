"""The one exception that is the user's to fix: its message is shown alone, without a traceback."""


class UserError(ValueError):
    """What was given, what is accepted, and what to do."""
