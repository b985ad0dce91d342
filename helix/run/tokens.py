"""Text to token ids and back: the folder's own tokenizer, or bytes where weights are random."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from common.errors import InputError

BYTES = 256
MOST_OPEN = 16  # tokens that are decoded again for each further one
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer(Protocol):
    """What the server needs of a tokenizer."""

    def encode(self, text: str, *, marks: bool = True) -> list[int]:
        """Return the ids of a text, with the marks that the model expects around it or without."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        ...


class ByteTokenizer:
    """Every byte of UTF-8 is a token; ids from 256 on have no text."""

    def encode(self, text: str, *, marks: bool = True) -> list[int]:
        """Return the text's bytes; there are no marks."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of the bytes; what is no UTF-8 becomes a replacement character."""
        return bytes(i for i in ids if i < BYTES).decode(errors="replace")


class FolderTokenizer:
    """The `tokenizer.json` of a Hugging Face folder."""

    def __init__(self, path: Path) -> None:
        """Read it."""
        try:
            from tokenizers import Tokenizer as Fast

            self._fast = Fast.from_file(str(path))
        except ImportError:
            raise InputError(
                f"{path} needs the package tokenizers, which is missing: pip install tokenizers"
            ) from None
        except Exception as error:  # the library raises its own bare exceptions
            raise InputError(f"{path}: not a tokenizer: {error}") from None

    def encode(self, text: str, *, marks: bool = True) -> list[int]:
        """Return the ids of a text, with the marks that the model expects or without."""
        return self._fast.encode(text, add_special_tokens=marks).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without marks."""
        return self._fast.decode(list(ids))


def tokenizer_of(folder: str) -> Tokenizer:
    """Return the tokenizer of a folder of weights; bytes for random weights."""
    if not folder:
        return ByteTokenizer()
    path = Path(folder, "tokenizer.json")
    if not path.is_file():
        raise InputError(f"{path}: no such file; text can only be served with a tokenizer")
    return FolderTokenizer(path)


class Unfolding:
    """The text of an answer as its tokens come: whole characters only, each once.

    A character may be spread over tokens; what may be the beginning of one shows as one replacement
    character at the end, and is held back. Tokens are decoded together with those before them, as
    some tokenizers need it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Begin with no tokens."""
        self._tokenizer = tokenizer
        self._ids = list[int]()
        self._from, self._done = 0, 0  # tokens from `done` on are open, from `from` on decoded
        self._told = 0  # characters of the open tokens that are told
        self.text = ""

    @property
    def count(self) -> int:
        """Tokens so far."""
        return len(self._ids)

    def add(self, token: int) -> str:
        """Return the text that this token completes, maybe none."""
        self._ids.append(token)
        return self._tell(to_the_end=False)

    def rest(self) -> str:
        """Return the text of what is left at the end."""
        return self._tell(to_the_end=True)

    def _tell(self, *, to_the_end: bool) -> str:
        known = self._tokenizer.decode(self._ids[self._from : self._done])
        text = self._tokenizer.decode(self._ids[self._from :])[len(known) :]
        held = text.endswith(REPLACEMENT) and not to_the_end
        new = text[self._told : len(text) - held]
        if held:
            self._told = len(text) - 1
            if len(self._ids) - self._done > MOST_OPEN:
                self._close_some(text)
        else:
            self._from, self._done, self._told = self._done, len(self._ids), 0
        self.text += new
        return new

    def _close_some(self, text: str) -> None:
        """Let fewer tokens be open, where the text falls into two between two of them."""
        for place in range(len(self._ids) - 1, self._done, -1):
            before = self._tokenizer.decode(self._ids[self._done : place])
            if before + self._tokenizer.decode(self._ids[place:]) == text:
                self._from, self._done = self._done, place
                self._told -= len(before)
                return
