"""What a user can put right: one exception class, printed by the front doors as one clean line."""


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message says what was expected, what came, and what to do. Front doors print it without a
    traceback and exit with status 2; everything else that is raised is a bug and keeps its traceback.
    """
