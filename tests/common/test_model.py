"""Models: counts against transformers' own, files as they come, and what is said of wrong ones."""

import csv
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.architecture import Architecture, Quantization, sheet
from common.case import to_toml
from common.errors import InputError
from common.model import read

MODELS = Path(__file__).parent / "models"
ROWS = list(csv.DictReader((MODELS / "parameters.csv").read_text().splitlines()))
VISION = {"Gemma-3-12B-it": 421290864}  # counted in that row's total, says its note
FAMILIES = tuple(sheet()["families"])
LLAMA = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 100}


def said(source: Mapping[str, Any] | str | Path) -> str:
    with pytest.raises(InputError) as error:
        read(source)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_the_counts_of_public_models_are_exact(row: dict[str, str]) -> None:
    model = read(MODELS / f"{row['name']}.json")
    parts, kv = model.parameters(), model.kv_bytes(stored="bf16")
    assert parts.total == int(row["total_parameters"]) - VISION.get(row["name"], 0)
    assert parts.embedding == int(row["embedding_parameters"])
    assert parts.head == int(row["head_parameters"])
    assert kv == (int(row["kv_bytes_per_token_per_layer_2byte"] or 0),) * int(row["layers"])
    assert sum(kv) == int(row["kv_bytes_per_token_2byte"] or 0)
    columns = {"hidden": "hidden", "heads": "heads", "kv_heads": "kv_heads", "vocabulary": "vocab"}
    assert {n: getattr(model, n) for n in columns} == {n: int(row[c]) for n, c in columns.items()}


@pytest.mark.parametrize("name", [row["name"] for row in ROWS])
def test_the_catalogue_holds_the_same_model_under_any_spelling(name: str) -> None:
    model = read(MODELS / f"{name}.json")
    assert read(name) == model
    assert read(name.lower().replace("-", "_ ")) == model
    assert sheet("catalogue")[name]["source"]


@pytest.mark.parametrize("name", [row["name"] for row in ROWS])
def test_a_model_written_as_toml_reads_back_equal(name: str) -> None:
    model = read(name)
    assert read(tomllib.loads(to_toml(model))) == model


def test_a_folder_a_json_file_and_a_toml_file_are_read(tmp_path: Path) -> None:
    config = (MODELS / "Qwen3-8B.json").read_text()
    (tmp_path / "config.json").write_text(config, encoding="utf-8-sig")
    (tmp_path / "own.toml").write_text(
        'family = "qwen3"\nlayers = 2\nhidden = 256\nheads = 4\nkv_heads = 2'
    )
    assert read(tmp_path) == read(tmp_path / "config.json") == read("Qwen3-8B")
    own = read(str(tmp_path / "own.toml"))
    assert (own.layers, own.kv_heads, own.head_dim, own.vocabulary) == (2, 2, 128, 151936)


def test_the_words_of_a_table_replace_those_of_its_config() -> None:
    model = read({"config": "Llama-3.1-8B", "dtype": "float16", "num_hidden_layers": 4})
    assert (model.layers, model.dtype, model.hidden) == (4, "fp16", 4096)
    nested = json.loads((MODELS / "Gemma-3-12B-it.json").read_text())
    assert read({"config": "Gemma-3-12B-it", "layers": 6}).layers == 6
    assert read(nested | {"torch_dtype": "float32"}).dtype == "fp32"


def test_what_is_not_counted_or_assumed_is_noted() -> None:
    assert any("vision" in note for note in read("Gemma-3-12B-it").notes)
    assert any("multi-token" in note for note in read("DeepSeek-V3").notes)
    assert any("pooler" in note for note in read("BERT-base-uncased").notes)
    assert any("bf16 is assumed" in note for note in read("GPT-2").notes)
    assert read("Llama-3.1-8B").notes == ()


def test_windows_are_by_layer() -> None:
    def windows(name: str) -> list[int]:
        model = read(name)
        return [model.window(layer) for layer in range(model.layers)]

    assert windows("Gemma-2-9B") == [4096, 0] * 21
    assert windows("Gemma-3-12B-it") == [*[1024] * 5, 0] * 8
    assert windows("gpt-oss-20b") == [128, 0] * 12
    assert windows("Phi-3-mini-4k-instruct") == [2047] * 32
    assert windows("Qwen2.5-7B") == [0] * 28
    assert read("gpt-oss-20b").kv_bytes(tokens=1000)[:2] == (128 * 2048, 1000 * 2048)


def test_experts_count_as_held_and_as_used() -> None:
    model = read("Mixtral-8x7B-v0.1")
    expert = 3 * 4096 * 14336
    idle = model.parameters().total - model.active_parameters()
    assert idle == 32 * 6 * expert
    used = model.active_parameters() - 32000 * 4096 - (32 * 2 + 1) * 4096  # embedding, norms
    assert model.linear_flop().total == 2 * used
    assert [read("DeepSeek-V3").has_experts(layer) for layer in (2, 3)] == [False, True]


# Stored tensors of one matrix: AWQ and GPTQ pack into 32-bit words; transformers' fp8 and mxfp4.
def _awq(inputs: int, outputs: int) -> int:
    groups = inputs // 128
    return 4 * inputs * outputs // 8 + 4 * groups * outputs // 8 + 2 * groups * outputs


def _gptq(inputs: int, outputs: int) -> int:
    return _awq(inputs, outputs) + 4 * inputs


def _fp8(inputs: int, outputs: int) -> int:
    return inputs * outputs + 4 * -(-inputs // 128) * -(-outputs // 128)


@pytest.mark.parametrize(
    ("packing", "stored"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, _awq),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}, _gptq),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, _fp8),
        ({"quant_method": "fp8", "activation_scheme": "static"}, lambda i, o: i * o + 4),
        ("fp8", lambda i, o: i * o + 4),
    ],
)
def test_quantized_weights_weigh_what_their_tensors_do(packing: Any, stored: Any) -> None:
    plain = json.loads((MODELS / "Qwen2.5-7B-Instruct.json").read_text())
    model = read(plain | {"quantization_config": packing})
    h, kv, width, rest = 3584, 512, 18944, 3584 + 2 * 512 + 2 * 3584  # biases, norms
    shapes = [(h, h), (h, kv), (h, kv), (h, h), (h, width), (h, width), (width, h)]
    layer = sum(stored(*shape) for shape in shapes) + 2 * rest
    assert model.weight_bytes().layers == (layer,) * 28
    assert model.weight_bytes().head == 2 * model.parameters().head
    assert model.weight_bytes("fp16") == read(plain).weight_bytes()


def test_mxfp4_packs_experts_alone() -> None:
    model = read("gpt-oss-20b")
    expert = 3 * 2880 * 2880
    packed = 24 * 32 * (expert // 2 + expert // 32)
    plain = model.parameters().total - 24 * 32 * expert
    assert model.weight_bytes().total == packed + 2 * plain


def test_modules_kept_and_routers_are_not_packed() -> None:
    plain = json.loads((MODELS / "Mixtral-8x7B-v0.1.json").read_text())
    packing = {
        "quant_method": "fp8",
        "ignored_layers": ["lm_head", "model.layers.0.self_attn", "gate"],
    }
    first, second = read(plain | {"quantization_config": packing}).weight_bytes().layers[:2]
    attention = 2 * 4096 * 4096 + 2 * 4096 * 1024
    assert first - second == attention - 4 * 4
    assert second == sum((attention, 24 * 4096 * 14336, 28 * 4, 2 * (2 * 4096 + 8 * 4096)))


def test_the_kv_cache_has_a_dtype_of_its_own() -> None:
    model = read({"config": "Llama-3.1-8B", "kv_dtype": "fp8"})
    assert sum(model.kv_bytes()) == 131072 // 2
    assert sum(read("Llama-3.1-8B").kv_bytes(stored="float8_e4m3fn")) == 131072 // 2


WRONG = {
    "model_type is missing": ({"hidden_size": 64}, ("model_type", "llama")),
    "unknown family": ({"model_type": "mamba"}, ("model_type", "'mamba'", "known")),
    "encoder-decoder": ({"model_type": "t5", "is_encoder_decoder": True}, ("'t5'",)),
    "unknown option": (LLAMA | {"use_mamba": True}, ("use_mamba", "llama")),
    "misspelt word": (LLAMA | {"num_key_value_head": 2}, ("num_key_value_head", "did you mean")),
    "window of llama": (LLAMA | {"sliding_window": 4096}, ("sliding_window",)),
    "cross attention": (
        {"model_type": "gpt2", "add_cross_attention": True},
        ("add_cross_attention",),
    ),
    "bert decoder": ({"model_type": "bert", "is_decoder": True}, ("is_decoder",)),
    "relative positions": (
        {"model_type": "bert", "position_embedding_type": "relative_key"},
        ("position_embedding_type", "relative_key"),
    ),
    "bidirectional": (
        {"model_type": "gemma3_text", "use_bidirectional_attention": True},
        ("use_bi",),
    ),
    "no bias": ({"model_type": "qwen2", "attention_bias": False}, ("attention_bias", "qwen2")),
    "heads": (LLAMA | {"num_attention_heads": 12}, ("num_attention_heads 12", "hidden_size 64")),
    "kv heads": (
        LLAMA | {"num_attention_heads": 8, "num_key_value_heads": 3},
        ("num_key_value_heads 3",),
    ),
    "default kv heads": (
        {"model_type": "mistral", "n_head": 4},
        ("num_key_value_heads 8", "n_head 4"),
    ),
    "text": (LLAMA | {"num_hidden_layers": "4"}, ("num_hidden_layers", "int", "str")),
    "text in our words": ({"family": "llama", "layers": "4"}, ("layers", "int", "str")),
    "text for a rank": (
        {"model_type": "deepseek_v3", "kv_lora_rank": "512"},
        ("kv_lora_rank", "'512'"),
    ),
    "null theta": (LLAMA | {"rope_theta": None}, ("rope_theta", "None")),
    "null layers": (LLAMA | {"num_hidden_layers": None}, ("num_hidden_layers",)),
    "zero": (LLAMA | {"vocab_size": 0}, ("vocab_size",)),
    "zero layers": (LLAMA | {"num_hidden_layers": 0}, ("num_hidden_layers",)),
    "zero rank": ({"model_type": "deepseek_v3", "kv_lora_rank": 0}, ("kv_lora_rank",)),
    "negative": (LLAMA | {"hidden_size": -64}, ("hidden_size",)),
    "negative window": ({"model_type": "mistral", "sliding_window": -1}, ("sliding_window",)),
    "contradiction": (LLAMA | {"n_layer": 3}, ("num_hidden_layers = 2", "n_layer = 3")),
    "types of fewer layers": (
        {"model_type": "qwen3", "num_hidden_layers": 2, "layer_types": ["full_attention"]},
        ("layer_types", "num_hidden_layers 2"),
    ),
    "linear attention": (
        {"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["linear_attention"]},
        ("layer_types", "linear_attention"),
    ),
    "sliding without window": (
        {"model_type": "qwen3", "num_hidden_layers": 1, "layer_types": ["sliding_attention"]},
        ("layer_types", "window"),
    ),
    "too many active": (
        {"model_type": "mixtral", "num_experts_per_tok": 9},
        ("num_experts_per_tok 9", "8"),
    ),
    "none active": ({"model_type": "deepseek_v2"}, ("num_experts_per_tok 0",)),
    "every other layer": ({"model_type": "deepseek_v3", "moe_layer_freq": 2}, ("moe_layer_freq",)),
    "dtype": (LLAMA | {"torch_dtype": "float17"}, ("dtype", "float17")),
    "rope kind": (
        LLAMA | {"rope_scaling": {"type": "mrope", "factor": 2}},
        ("rope_scaling", "mrope"),
    ),
    "rope text": (LLAMA | {"rope_scaling": "yarn"}, ("rope_scaling", "yarn")),
    "rope factor": (LLAMA | {"rope_scaling": {"type": "yarn", "factor": -1}}, ("factor", "-1")),
    "packing": (
        LLAMA | {"quantization_config": {"quant_method": "bitsandbytes"}},
        ("quant_method", "bitsandbytes", "awq"),
    ),
    "three bits": (
        LLAMA | {"quantization": {"method": "gptq", "bits": 3}},
        ("quantization.bits", "3"),
    ),
    "packed head": (
        LLAMA | {"quantization_config": {"quant_method": "gptq", "lm_head": True}},
        ("lm_head",),
    ),
    "unmatched module": (
        {"model_type": "phi3", "quantization": {"method": "fp8", "kept": ["qkv_proj"]}},
        ("quantization", "qkv_proj"),
    ),
    "text_config": ({"model_type": "gemma3", "text_config": 3}, ("text_config",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line_that_names_field_and_file(case: str, tmp_path: Path) -> None:
    words, parts = WRONG[case]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(words))
    line = said(path)
    assert line.startswith(f"{path}: ")
    assert [part for part in parts if part not in line] == []


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert "config.json" in said(tmp_path)
    for name, text in (
        ("a.json", "{"),
        ("b.json", "[1]"),
        ("c.toml", "layers ="),
        ("d.json", "\xff"),
    ):
        (tmp_path / name).write_text(text, encoding="latin-1")
        assert name in said(tmp_path / name)
    assert "Llama-3.1-8B" in said("Llama-3.1-8C")
    assert "gone.json" in said(tmp_path / "gone.json")


WORDS = (
    "hidden_size",
    "rope_scaling",
    "quantization_config",
    "facts",
    "layer_types",
    "num_experts",
    "torch_dtype",
    "sliding_window",
    "text_config",
    "family",
    "first_k_dense_replace",
)
ANY_VALUE = (
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.integers())
)


@given(st.dictionaries(st.sampled_from(WORDS), ANY_VALUE), st.sampled_from(FAMILIES))
def test_any_words_give_a_model_or_one_line(words: dict[str, Any], family: str) -> None:
    source = {"model_type": family, **words}
    try:
        counted = read(source).parameters().total
    except InputError:
        assert said(source)  # one line, the same again
    else:
        assert counted > 0


def test_the_command_prints_counts_and_refuses_in_one_line() -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "common.model", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "parameters total: 8,030,261,248" in run("llama 3.1 8b").stdout
    about = json.loads(run(str(MODELS / "Mixtral-8x7B-v0.1.json"), "--json").stdout)
    assert about["parameters"]["active"] == 12879925248
    assert about["kv_bytes_per_token"]["total"] == 131072
    assert set(about) >= {"flop_per_token_at_context_1", "flop_per_token_at_context_32768"}
    wrong = run("Llama-9")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)


def test_planning_needs_neither_torch_nor_transformers() -> None:
    code = "import sys, common.model as m; m.read('gpt-oss-20b').weight_bytes(); "
    code += "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_struct_is_checked_as_a_file_is() -> None:
    model = read("Llama-3.1-8B")
    with pytest.raises(InputError, match="kv_heads"):
        msgspec.structs.replace(model, kv_heads=5)
    packed = msgspec.structs.replace(
        model, quantization=Quantization(method="awq", bits=4, group_size=-1)
    )
    assert packed.weight_bytes().total < model.weight_bytes().total
    sizes = {"layers": 1, "hidden": 8, "heads": 2, "vocabulary": 3, "context": 4, "tied": True}
    assert Architecture(family="own", **sizes).parameters().layers == (4 * 64 + 3 * 8 * 32 + 2 * 8,)
