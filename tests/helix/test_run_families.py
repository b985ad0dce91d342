"""The families that are served against transformers: the same tokens, whole and over machines."""

from pathlib import Path

import pytest
import torch

from common.errors import InputError
from helix.run.decoder_config import FAMILIES, read_config
from helix.run.messages import Key
from helix.run.stage import Holding, Item, Stage

transformers = pytest.importorskip("transformers")

from tests.helix.test_run_decoder import PROMPTS, greedy, one_thread, serve  # noqa: E402

__all__ = ["one_thread"]  # used by being here

SIZES = {
    "vocab_size": 259, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "initializer_range": 0.2,
    "max_position_embeddings": 256, "attn_implementation": "eager",
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 6, "num_experts_per_tok": 2}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0}
LLAMA = ("Llama", {"attention_bias": True, "mlp_bias": True})
WAYS = {
    "llama, biases": LLAMA,
    "llama, linear": ("Llama", {"rope_parameters": {**YARN, "rope_type": "linear"}}),
    "llama, yarn": (
        "Llama",
        {"rope_parameters": {**YARN, "original_max_position_embeddings": 64}},
    ),
    "mistral, window": ("Mistral", {"sliding_window": 8}),
    "mistral, none": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2, windows above": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3", {"tie_word_embeddings": True}),
    "gemma2": ("Gemma2", {"sliding_window": 8, "query_pre_attn_scalar": 20}),
    "gemma3": (
        "Gemma3",
        {"sliding_window": 8, "query_pre_attn_scalar": 20, "sliding_window_pattern": 3},
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 6, "num_experts_per_tok": 2}),
    "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "norm_topk_prob": True, "mlp_only_layers": [1]}),
    "qwen3_moe, shares as they are": ("Qwen3Moe", {**EXPERTS, "norm_topk_prob": False}),
}


def save(folder: Path, name: str, **changes: object) -> torch.nn.Module:
    """Write a random model; its norms and biases are no ones and zeros."""
    kind = f"{name}Text" if name == "Gemma3" else name
    given = {**SIZES, **changes}
    if name == "Qwen2":
        del given["head_dim"]
    config = getattr(transformers, f"{kind}Config")(**given)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    for values in model.parameters():
        if values.dim() == 1:
            values.data += 0.3 * torch.randn(values.shape)
    model.save_pretrained(folder)
    return model


def prompt_scores(folder: Path, ids: list[int]) -> torch.Tensor:
    """By position [T, V], of one machine that holds all layers."""
    config = read_config(folder)
    stage = Stage(config, Holding(0, config.layers, 20_000, str(folder)))
    item = Item(Key(0, 0), range(config.layers), 0, len(ids), prompt=True)
    stage.admit(item)
    stage.embed(item, ids)
    for layer in range(config.layers):
        stage.layer(layer, [item])
    return stage._scores(item.x_TD)


@pytest.mark.parametrize("way", WAYS)
def test_a_family_serves_what_transformers_does(way, tmp_path):
    name, changes = WAYS[way]
    model = save(tmp_path, name, **changes)
    with torch.no_grad():
        expected = model(torch.tensor([PROMPTS[3]])).logits[0]
    with torch.inference_mode():
        found = prompt_scores(tmp_path, PROMPTS[3])
    assert torch.allclose(found, expected, atol=2e-4, rtol=1e-4), (found - expected).abs().max()
    tokens = [greedy(model, prompt) for prompt in PROMPTS]
    assert serve(tmp_path, [(0, 4)], True) == tokens
    assert serve(tmp_path, [(0, 1), (1, 3), (3, 4)], False) == tokens


def test_every_family_is_tried():
    names = {f"{name}{'Text' * (name == 'Gemma3')}Config" for name, _ in WAYS.values()}
    assert {getattr(transformers, name).model_type for name in names} == set(FAMILIES)


def test_weights_in_eight_bit_are_never_taken_as_they_are(tmp_path):
    from safetensors.torch import load_file, save_file

    save(tmp_path, "Qwen3")
    path = tmp_path / "model.safetensors"
    held = load_file(path)
    name = "model.layers.2.mlp.up_proj.weight"
    save_file({**held, name: held[name].to(torch.float8_e4m3fn)}, path)
    with pytest.raises(InputError, match=rf"{name} is stored as float8_e4m3fn, which is quantized"):
        Stage(read_config(tmp_path), Holding(0, 4, 100, str(tmp_path)))


def test_a_text_model_inside_one_that_sees_images_is_found(tmp_path):
    from safetensors.torch import load_file, save_file

    model = save(tmp_path, "Gemma3", sliding_window=8)
    path = tmp_path / "model.safetensors"
    save_file({f"language_model.{name}": value for name, value in load_file(path).items()}, path)
    assert serve(tmp_path, [(0, 4)], True) == [greedy(model, prompt) for prompt in PROMPTS]
