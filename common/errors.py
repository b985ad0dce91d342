"""The one exception for a user's mistake."""


class InputError(ValueError):
    """A mistake in what the user gave: one sentence that says what is wrong and how to mend it."""
