"""The one error that a user is meant to read."""


class InputError(ValueError):
    """Something a user gave cannot be used.

    Its message is one sentence that names the value, says where it came from, and ends with what to do. The
    command line prints it alone, without a traceback, and exits with code 2.
    """
