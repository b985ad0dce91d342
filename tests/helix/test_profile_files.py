"""A folder of measured profiles: what no machine can be is refused in a sentence."""

from pathlib import Path

import pytest

from common.errors import InputError
from helix.inputs.profile import KV_BLOCK_TOKENS, read_profiles

TIMES = "machine,phase,tokens,milliseconds\n" + "".join(
    f"m,{phase},{tokens},{tokens}\n" for phase in ("prompt", "decode") for tokens in (0, 256, 2048)
)
GOOD = ("m,1,5,1,2", "m,2,1,1,2")


def folder(path: Path, rows: tuple[str, ...]) -> Path:
    path.joinpath("times.csv").write_text(TIMES)
    head = "machine,layers,kv_blocks,prompt_max_requests,decode_max_tokens"
    path.joinpath("limits.csv").write_text("\n".join([head, *rows, ""]))
    return path


def test_a_single_block_of_kv_cache_is_enough(tmp_path: Path):
    limits = read_profiles(folder(tmp_path, GOOD))["m"].limits
    assert [one.kv_entries for one in limits] == [5 * KV_BLOCK_TOKENS, 2 * KV_BLOCK_TOKENS]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("m,2,0,1,2", "m with 2 layers: kv_blocks is 0, expected 1 or more; leave out the rows"),
        ("m,2,-5,1,2", "kv_blocks is -5"),
        ("m,2,5,0,2", "prompt_max_requests is 0"),
        ("m,2,5,1,0", "decode_max_tokens is 0"),
        ("m,3,5,1,2", "m with 3 layers: expected rows for 1, 2, ... layers"),
        ("m,2,many,1,2", "not a profile"),
    ],
)
def test_what_no_machine_can_be_is_refused(tmp_path: Path, row: str, said: str):
    with pytest.raises(InputError, match=said):
        read_profiles(folder(tmp_path, (GOOD[0], row)))
