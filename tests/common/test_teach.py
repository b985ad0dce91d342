"""`inputs` prints a file that explains itself, and reads back equal."""

import tomllib
from typing import Literal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from common.teach import taught


class Inner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of it."""

    size: float = 1.5
    """Metres."""
    names: tuple[str, ...] = ()


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of many."""

    kind: Literal["left", "right"]
    """Where."""
    count: int | None = None
    """How many; by default all."""


class Whole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it."""

    name: str
    about: str = ""
    """In words."""
    deep: Inner = Inner()
    rows: tuple[Row, ...] = ()
    """Those there are."""
    scale: dict[str, float] = {}
    shapes: dict[str, Inner] = {}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(allow_nan=False)
inners = st.builds(Inner, size=numbers, names=st.lists(texts, max_size=2).map(tuple))
rows = st.builds(
    Row, kind=st.sampled_from(["left", "right"]), count=st.none() | st.integers(-(2**60), 2**60)
)
wholes = st.builds(
    Whole,
    name=texts,
    about=texts,
    deep=inners,
    rows=st.lists(rows, max_size=2).map(tuple),
    scale=st.dictionaries(texts, numbers, max_size=2),
    shapes=st.dictionaries(texts, inners, max_size=2),
)


@given(wholes, st.booleans())
def test_it_reads_back_equal(whole: Whole, everything: bool):
    assert msgspec.convert(tomllib.loads(taught(whole, everything=everything)), Whole) == whole


@given(wholes)
def test_what_is_folded_reads_back_equal_when_its_comments_are_taken_away(whole: Whole):
    head, _, folded = taught(whole).partition("\n# What follows has its default values")
    opened = [line.removeprefix("# ") for line in folded.split("\n")[1:]]
    text = head + "\n" + "\n".join(opened)
    assert msgspec.convert(tomllib.loads(text), Whole) == whole


def test_every_field_says_what_it_means_and_what_it_may_be():
    text = taught(Whole(name="x", rows=(Row(kind="left"),)))
    assert 'about = ""  # In words' in text
    assert 'kind = "left"  # Where; one of left, right' in text
    assert "# count = ... (How many; by default all; not set)" in text
    assert "# Those there are.\n[[rows]]" in text


def test_tables_at_their_defaults_stand_at_the_end_as_comments():
    text = taught(Whole(name="x", scale={"a": 1.0}))
    live, _, folded = text.partition("# What follows has its default values")
    assert "[scale]\na = 1.0" in live
    assert "deep" not in live
    assert "# [deep]\n# size = 1.5  # Metres" in folded
    assert "# What follows" not in taught(Whole(name="x"), everything=True)
