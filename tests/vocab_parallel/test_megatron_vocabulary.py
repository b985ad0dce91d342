"""The vocabulary of a Megatron script: from its argument or its tokenizer's file, never guessed."""

import json
import random
from pathlib import Path

import pytest

from common.errors import InputError
from vocab_parallel.inputs.arguments import read_arguments
from vocab_parallel.inputs.tokenizer import padded_size


def sentencepiece(pieces: int) -> bytes:
    """Return a model file by the protocol buffer's wire format: pieces, then another field."""
    each = [
        b"\x0a\x02" + bytes(random.Random(k).choices(range(65, 90), k=2)) for k in range(pieces)
    ]
    return b"".join(b"\x0a" + bytes([len(p)]) + p for p in each) + b"\x12\x03abc"


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ("--vocab-size 50257", 50304),
        ("--vocab-size 50304", 50304),
        ("--vocab-size 128256 --tokenizer-type NullTokenizer", 128384),
        ("--vocab-size 100 --make-vocab-size-divisible-by 8", 104),
        ("--padded-vocab-size 777", 777),
        ("--tokenizer-type GPT2BPETokenizer --vocab-file gpt2.json", 384),
        ("--vocab-file gpt2.json", 384),
        ("--tokenizer-type HuggingFaceTokenizer --tokenizer-model hf", 256),
        ("--tokenizer-type Llama2Tokenizer --tokenizer-model sp.model", 512),
        ("--tokenizer-type Llama2Tokenizer --tokenizer-model gone --vocab-size 9", 128),
    ],
)
def test_the_vocabulary_is_counted_and_padded(tmp_path: Path, arguments: str, rows: int) -> None:
    (tmp_path / "gpt2.json").write_text(json.dumps({f"t{i}": i for i in range(257)}))
    (tmp_path / "hf").mkdir()
    tokens = [{"content": "t1"}, *({"content": f"<{i}>"} for i in range(6))]
    about = {"model": {"vocab": {f"t{i}": i for i in range(250)}}, "added_tokens": tokens}
    (tmp_path / "hf/tokenizer.json").write_text(json.dumps(about))
    (tmp_path / "sp.model").write_bytes(sentencepiece(400))
    assert padded_size(read_arguments(arguments.split()), 1, tmp_path) == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--vocab-size is not given"),
        ("--tokenizer-type NullTokenizer", "--vocab-size is not given"),
        ("--tokenizer-type Llama2Tokenizer --tokenizer-model bad", "no file of a Llama2Tokenizer"),
        ("--tokenizer-type HuggingFaceTokenizer --tokenizer-model bad", "no file of a Hugging"),
        ("--tokenizer-type Odd --vocab-size 4", "--tokenizer-type Odd is not read here"),
        ("--tokenizer-type HuggingFaceTokenizer", "--tokenizer-model is not given"),
    ],
)
def test_a_vocabulary_is_never_guessed(tmp_path: Path, arguments: str, message: str) -> None:
    (tmp_path / "bad").write_bytes(b"\xff{")
    with pytest.raises(InputError, match=message):
        padded_size(read_arguments(arguments.split()), 1, tmp_path)
