"""The exceptions for a user's mistake and for a case that has no result."""


class InputError(ValueError):
    """A mistake in what the user gave: one sentence that says what is wrong and how to mend it."""


class CaseError(InputError):
    """A case that was rightly asked and has no result; it is kept as a failed record."""


class RankError(CaseError):
    """Rank processes ended early; the sentence names the rank that was the cause."""

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory
