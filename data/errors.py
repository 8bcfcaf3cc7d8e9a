"""The errors that a user is meant to read: each is a sentence, printed alone and without a traceback."""


class InputError(ValueError):
    """Something a user gave cannot be used.

    Its message is one sentence that names the value, says where it came from, and ends with what to do. The
    command line prints it alone, without a traceback, and exits with code 2.
    """


class UnfinishedError(RuntimeError):
    """Work that was asked for, and rightly, came to no result; its message says why. Exit code 1."""
