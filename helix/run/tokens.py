"""Text to token ids and back: the folder's own tokenizer, or bytes where weights are random."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from common.errors import InputError

BYTES = 256
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer(Protocol):
    """What the server needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        ...


class ByteTokenizer:
    """Every byte of UTF-8 is a token; ids from 256 on have no text."""

    def encode(self, text: str) -> list[int]:
        """Return the text's bytes."""
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

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, with the marks that the model expects."""
        return self._fast.encode(text).ids

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
    """The text of an answer as its tokens come: whole characters only, each once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Begin with no tokens."""
        self._tokenizer = tokenizer
        self._ids = list[int]()
        self._done, self._from = 0, 0
        self.text = ""

    def add(self, token: int) -> str:
        """Return the text that this token completes, maybe none."""
        self._ids.append(token)
        known = self._tokenizer.decode(self._ids[self._from : self._done])
        text = self._tokenizer.decode(self._ids[self._from :])
        if text.endswith(REPLACEMENT) and len(self._ids) - self._done < 4:
            return ""  # perhaps the beginning of a character
        new = text[len(known) :]
        self._from, self._done = self._done, len(self._ids)
        self.text += new
        return new

    def rest(self) -> str:
        """Return the text of what is left at the end."""
        known = self._tokenizer.decode(self._ids[self._from : self._done])
        new = self._tokenizer.decode(self._ids[self._from :])[len(known) :]
        self._from = self._done = len(self._ids)
        self.text += new
        return new
