"""Names as users write them, matched without regard to case, blanks, hyphens and underscores."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from common.errors import InputError

T = TypeVar("T")


def look_up(name: str, known: Mapping[str, T], what: str, remedy: str = "") -> T:
    """Return what is known by that name; InputError tells the nearest names, and the remedy."""
    found = {_plain(key): value for key, value in known.items()}
    if _plain(name) in found:
        return found[_plain(name)]
    raise InputError(f"{what} {name!r} is not known{near(name, known)}{remedy}")


def near(name: str, known: Iterable[str], most: int = 3) -> str:
    """Return the names close to a wrong one, or all (of many: the nearest), as a sentence's end."""
    words, asked = {_plain(word): word for word in sorted(set(known))}, _plain(name)
    close = [word for word in words if asked and word.startswith(asked)][:most]
    close = close or get_close_matches(asked, words, n=most)
    if close:
        return f"; did you mean {' or '.join(words[word] for word in close)}?"
    if len(words) <= 16:
        return f"; known: {', '.join(words.values())}" if words else ""
    far = get_close_matches(asked, words, n=most, cutoff=0.0)
    return f"; the nearest are {', '.join(words[word] for word in far)}"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
