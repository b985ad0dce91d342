"""Weights in Hugging Face's files: what transformers writes is read, another model is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import InputError
from puzzle.inputs.examples import examples
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import EMBEDDING, LM_HEAD, SCORE, Llama, Role, tensors
from puzzle.plan.plans import make_plan
from puzzle.plan.slices import Slice, held
from puzzle.run.checkpoint_files import checkpoint_weights
from puzzle.run.launch import check_job
from puzzle.run.settings import Job

MODEL = Llama(
    layers=3, hidden=32, heads=4, kv_heads=2, ffn=48, vocabulary=64, rope_base=500.0,
    norm_epsilon=1e-3,
)  # fmt: skip
INDEX = "model.safetensors.index.json"


def save(folder: Path, kind: str = "LlamaForCausalLM", **options: Any) -> dict[str, torch.Tensor]:
    """Write a random model as transformers does, in several files; return its tensors."""
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        **({"tie_word_embeddings": False} | options),
    )
    model = getattr(transformers, kind)(config)
    model.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / INDEX).is_file()
    return model.state_dict()


def whole(tensor: Any) -> Slice:
    return Slice(tensor, 0, 0 if tensor.axis is None else tensor.shape[tensor.axis])


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        ("LlamaForCausalLM", "actor"),
        ("LlamaForCausalLM", "critic"),
        ("LlamaForSequenceClassification", "critic"),
    ],
)
def test_what_transformers_writes_in_several_files_is_read_slice_by_slice(
    kind: str, role: Role, tmp_path: Path
):
    options = {"num_labels": 1} if kind != "LlamaForCausalLM" else {}
    wanted = save(tmp_path, kind, **options)
    read = checkpoint_weights(str(tmp_path), MODEL, role, 0)
    for tensor in tensors(MODEL, role):
        if tensor.name in wanted:
            assert torch.equal(read(whole(tensor)), wanted[tensor.name])
        else:  # a critic that begins as an actor has a head of its own
            assert (kind, tensor.name) == ("LlamaForCausalLM", SCORE)
            assert read(whole(tensor)).shape == tensor.shape
    layout = Layout(pipeline=3, tensor=2)
    for place in layout.places():
        for part in held(MODEL, role, layout, place.stage, place.slice):
            name, axis = part.tensor.name, part.tensor.axis
            if name in wanted and axis is not None:
                cut = wanted[name].narrow(axis, part.start, part.stop - part.start)
                assert torch.equal(read(part), cut)


def test_a_tied_head_is_read_from_the_embedding(tmp_path: Path):
    wanted = save(tmp_path, tie_word_embeddings=True)
    read = checkpoint_weights(str(tmp_path), MODEL, "actor", 0)
    (head,) = [t for t in tensors(MODEL) if t.name == LM_HEAD]
    assert LM_HEAD not in json.loads((tmp_path / INDEX).read_text())["weight_map"]
    assert torch.equal(read(whole(head)), wanted[EMBEDDING])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_theta": 1e4}}, r"rope_theta is 10000\.0, .* set actor\.rope"),
        ({"rope_parameters": {}, "rope_theta": 1e6}, r"rope_theta is 1000000\.0, .* has 500\.0"),
        ({"rms_norm_eps": 1e-6}, r"rms_norm_eps is 1e-06, .* set actor\.norm_epsilon"),
        ({"num_key_value_heads": 4}, r"num_key_value_heads is 4, .* set actor\.kv_heads"),
        ({"num_attention_heads": 8}, r"num_attention_heads is 8, .* set actor\.heads"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_type is 'llama3', but only 'default'"),
        ({"rope_parameters": {}, "rope_scaling": {"type": "linear"}}, "rope_type is 'linear'"),
        ({"attention_bias": True}, "attention_bias is True, but only False"),
        ({"model_type": "mistral"}, "model_type is 'mistral', but only 'llama'"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
):
    """None of these shows in the weights' shapes."""
    save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message) as error:
        checkpoint_weights(str(tmp_path), MODEL, "actor", 0)
    assert "\n" not in str(error.value)


def one_file(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "config": (lambda f: (f / "config.json").write_text("{"), "config.json: not JSON"),
    "index": (lambda f: (f / INDEX).write_text("[1]"), "no JSON object with a 'weight_map'"),
    "empty index": (lambda f: (f / INDEX).write_text(""), "no JSON object with a 'weight_map'"),
    "missing": (lambda f: one_file(f).unlink(), "no such file, so the checkpoint is not whole"),
    "cut": (
        lambda f: one_file(f).write_bytes(one_file(f).read_bytes()[:-8]),
        "no whole safetensors file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused_before_any_rank_is_started(damage: str, tmp_path: Path):
    experiment = examples()["tiny-cpu-1"]
    save(tmp_path)
    plan = make_plan(experiment, "given")
    spoil, message = DAMAGE[damage]
    spoil(tmp_path)
    with pytest.raises(InputError, match=message):
        checkpoint_weights(str(tmp_path), MODEL, "actor", 0)
    running = type(experiment.running)(actor_weights=str(tmp_path))
    with pytest.raises(InputError):
        check_job(Job(plan, experiment.ppo, running, 0, "gloo"))
