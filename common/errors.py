"""The one exception for a user's mistake."""


class InputError(ValueError):
    """A mistake in what the user gave.

    The message is one sentence that says what is wrong and how to mend it; the command line
    prints it alone and exits with status 2.
    """
