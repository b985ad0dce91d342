"""The layers against transformers' LLaMA: the same greedy tokens however cut and batched."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputError
from helix.run.decoder_config import DecoderConfig, read_config
from helix.run.kv_pool import KvPool, PoolIsFull
from helix.run.messages import Key, Sampling
from helix.run.stage import Holding, Item, Stage

transformers = pytest.importorskip("transformers")

PROMPTS = [[5, 9, 200, 31, 7], [1] * 20, [90, 3], list(range(40, 83))]
NEW = 16


def save(folder: Path, **changes: object) -> torch.nn.Module:
    settings = {
        "vocab_size": 259,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "attn_implementation": "sdpa",
    }
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{**settings, **changes})
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[int]]]:
    path = tmp_path_factory.mktemp("model")
    model = save(path)
    return path, [greedy(model, prompt) for prompt in PROMPTS]


def greedy(model: torch.nn.Module, prompt: list[int], new: int = NEW) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.no_grad():
        done = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
            do_sample=False, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    return done[0, len(prompt) :].tolist()


def serve(path: Path, cuts: list[tuple[int, int]], together: bool) -> list[list[int]]:
    """Decode all prompts over machines that hold these runs of layers."""
    config = read_config(path)
    stages = [Stage(config, Holding(a, b, 20_000, str(path))) for a, b in cuts]
    done = [list[int]() for _ in PROMPTS]
    for step in range(NEW):
        groups = [list(range(len(PROMPTS)))] if together else [[i] for i in range(len(PROMPTS))]
        for group in groups:
            for i, token in zip(group, through(stages, cuts, group, done, step), strict=True):
                done[i].append(token)
    for stage in stages:
        assert stage.pool.used > 0
        for i in range(len(PROMPTS)):
            stage.pool.release(Key(i, 0))
        assert (stage.pool.used, stage.pool.requests) == (0, 0)
    return done


def through(
    stages: list[Stage], cuts: list[tuple[int, int]], group: list[int], done: list[list[int]],
    step: int,
) -> list[int]:  # fmt: skip
    carried: list[torch.Tensor] = []
    entry = 0
    items: list[Item] = []
    for stage, (_, end) in zip(stages, cuts, strict=True):
        items = []
        for n, i in enumerate(group):
            begin = 0 if step == 0 else len(PROMPTS[i]) + step - 1
            count = len(PROMPTS[i]) if step == 0 else 1
            item = Item(Key(i, 0), range(entry, end), begin, count, prompt=step == 0)
            stage.admit(item)
            if entry == 0:
                stage.embed(item, PROMPTS[i] if step == 0 else done[i][-1:])
            else:
                item.x_TD = carried[n]
            items.append(item)
        for layer in range(entry, end):
            stage.layer(layer, items)
        carried, entry = [item.x_TD for item in items], end
    for item in items:
        stages[-1].begin(item.key, Sampling(), item.begin + item.count, [])
    return [one.token for one in stages[-1].tokens(items)]


@pytest.mark.parametrize(
    "cuts",
    [
        [(0, 6)],
        [(0, 3), (3, 6)],
        [(0, 1), (1, 5), (5, 6)],
        [(0, 4), (2, 6)],
        [(0, 3), (1, 5), (4, 6)],
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_greedy_tokens_are_those_of_transformers(folder, cuts, together):
    path, expected = folder
    assert serve(path, cuts, together) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True},
        {"head_dim": 32, "num_key_value_heads": 1},
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0,
                "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ],
)  # fmt: skip
def test_variants_of_the_model_too(tmp_path, changes):
    model = save(tmp_path, **changes)
    assert serve(tmp_path, [(0, 2), (2, 6)], True) == [greedy(model, p) for p in PROMPTS]


def test_random_weights_do_not_depend_on_who_holds_them(folder):
    config = read_config(folder[0])
    whole = Stage(config, Holding(0, 6, 1000, seed=3)).weights
    part = Stage(config, Holding(2, 5, 1000, seed=3)).weights
    other = Stage(config, Holding(2, 5, 1000, seed=4)).weights
    for a, b, c in zip(whole.layers[2:5], part.layers, other.layers, strict=True):
        assert torch.equal(a.qkv, b.qkv)
        assert not torch.equal(a.qkv, c.qkv)
    assert all(not torch.equal(a.mlp.down, b.mlp.down) for a, b in pairwise(whole.layers))
    assert not torch.equal(whole.layers[0].mlp.gate_up[:96], whole.layers[0].mlp.gate_up[96:])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "phi3"}, "family phi3 are not served"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected one of silu"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type is 'longrope'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "has no factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized"),
    ],
)
def test_what_is_not_served_is_said(folder, tmp_path, change, said):
    config = json.loads((folder[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=said):
        read_config(tmp_path)


def test_a_folder_without_weights_is_a_users_mistake(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder[0] / "config.json").read_text())
    with pytest.raises(InputError, match="not safetensors that can be read"):
        Stage(read_config(tmp_path), Holding(0, 1, 100, str(tmp_path)))


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 70), st.booleans()), min_size=1, max_size=60
    )
)
@settings(max_examples=60, deadline=None)
def test_the_pool_never_gives_a_block_twice_and_gets_all_back(steps):
    cpu = torch.device("cpu")
    pool = KvPool(24, 3, 128, 1, 2, cpu, torch.float32)
    for request, tokens, leaves in steps:
        key = Key(request, 0)
        before = pool.used
        if leaves:
            pool.release(key)
            continue
        try:
            pool.reserve(key, range(request % 3, 3), tokens)
        except PoolIsFull:
            assert pool.used <= before
        held = [block for _, _, tables in pool._held.values() for t in tables for block in t]
        assert len(held) == len(set(held)) == pool.used
    for request in range(6):
        pool.release(Key(request, 0))
    assert (pool.used, pool.requests) == (0, 0)


def test_the_configuration_reads_back_the_sizes(folder):
    config = read_config(folder[0])
    assert isinstance(config, DecoderConfig)
    assert (config.layers, config.kv_heads, config.head_size, config.vocabulary) == (6, 2, 16, 259)
