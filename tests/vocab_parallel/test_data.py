"""Tokens: the same for all ranks, learnable, and files that are refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import InputError
from vocab_parallel.inputs.model import Model
from vocab_parallel.run.data import SONNETS, SONNETS_GPT2, load_tokens, sequences

MODEL = Model(layers=1, hidden=8, heads=1, sequence=7, vocabulary=256)


def test_synthetic_tokens_depend_on_seed_and_step_alone() -> None:
    first = sequences(MODEL, 4, seed=1, step=2)
    assert first.shape == (4, 8)
    assert (first == sequences(MODEL, 4, seed=1, step=2)).all()
    assert (first != sequences(MODEL, 4, seed=1, step=3)).any()


def test_the_text_that_comes_along_is_cut_into_its_bytes() -> None:
    ids = load_tokens(SONNETS, MODEL)
    assert ids is not None
    assert bytes(ids[:9].tolist()) == b"Shall I c"
    text = bytes(ids.tolist())
    for row in sequences(MODEL, 5, seed=0, step=0, ids=ids):
        assert bytes(row.tolist()) in text


def test_the_same_text_in_gpt2s_tokens() -> None:
    model = Model(layers=1, hidden=8, heads=1, sequence=7, vocabulary=50257)
    ids = load_tokens(SONNETS_GPT2, model)
    assert ids is not None
    # "Sh" "all" " I" " compare" " thee" " to"; four bytes of English a token
    assert ids[:6].tolist() == [2484, 439, 314, 8996, 17903, 284]
    text = load_tokens(SONNETS, MODEL)
    assert text is not None
    assert 3 < len(text) / len(ids) < 5
    with pytest.raises(InputError, match="choose a larger"):
        load_tokens(SONNETS_GPT2, MODEL)


def test_a_text_and_an_array_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hallo, Welt!")
    ids = load_tokens(str(tmp_path / "a.txt"), MODEL)
    assert ids is not None
    assert len(ids) == 12
    np.save(tmp_path / "b.npy", np.arange(50, dtype=np.uint16))
    ids = load_tokens(str(tmp_path / "b.npy"), MODEL)
    assert ids is not None
    assert ids[49] == 49


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros((2, 9), dtype=np.int64), "expected one row"),
        (np.zeros(20), "expected one row"),
        (np.zeros(7, dtype=np.int64), "too few"),
        (np.full(20, 256), "choose a larger model.vocabulary"),
    ],
)
def test_files_of_no_use_are_refused(
    tmp_path: Path, ids: np.typing.NDArray[np.generic], message: str
) -> None:
    np.save(tmp_path / "x.npy", ids)
    with pytest.raises(InputError, match=message):
        load_tokens(str(tmp_path / "x.npy"), MODEL)


@pytest.mark.parametrize("content", [b"text", b"", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"not a \.npy file"):
        load_tokens(str(tmp_path / "x.npy"), MODEL)
