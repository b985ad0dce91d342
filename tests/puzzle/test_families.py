"""LLaMA's kin by their configurations: the same logits as transformers, in every layout."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from common.artifact import Ask, Case
from common.case import read_toml, to_toml
from common.errors import InputError
from common.ranks import run_ranks
from puzzle import experiments as named
from puzzle.inputs.cluster import GIB, Cluster
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import Llama, Llama3Rope, parameters, tensors
from puzzle.inputs.workload import Workload
from puzzle.plan import answer
from puzzle.plan.plans import make_plan
from puzzle.plan.slices import Slice
from puzzle.run.checkpoint_config import config_of
from puzzle.run.checkpoint_files import checkpoint_weights
from puzzle.run.groups import Groups
from puzzle.run.launch import launch
from puzzle.run.settings import Job
from puzzle.run.stage import Stage, whole_tokens
from tests.puzzle.rank_tasks import all_logits, learn_jobs

pytestmark = pytest.mark.timeout(600)

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
STRETCHED = {
    "rope_type": "llama3", "rope_theta": 1000.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"rope_parameters": STRETCHED}),
    "mistral": ("Mistral", {"head_dim": 16, "sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
}


def saved(family: str, folder: Path) -> Any:
    """Write a random model of a family as transformers does, biases and norms random too."""
    import transformers

    name, more = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(
        **{**SIZES, "tie_word_embeddings": False, **more}
    )
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight += 0.3 * torch.randn(weight.shape, generator=draw)
    model.save_pretrained(folder)
    return model


class Alone(Groups):
    """A place of its own."""

    def __init__(self) -> None:
        self.layout, self.place = Layout(), Layout().place(0)
        self.tensor = self.data = self.model = None


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family: str, tmp_path: Path):
    theirs = saved(family, tmp_path)
    model = Llama(config=str(tmp_path))
    assert model.family == family
    assert sum(p.numel() for p in theirs.parameters()) == parameters(model)
    read = checkpoint_weights(str(tmp_path), model, "actor", 0)
    whole = {
        t.name: read(Slice(t, 0, 0 if t.axis is None else t.shape[t.axis])) for t in tensors(model)
    }
    stage = Stage(model, "actor", Alone(), whole)
    ids = torch.randint(0, 64, (3, 24), generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(ids)
    valid[1, :5] = 0
    tokens = whole_tokens(ids, valid)
    with torch.no_grad():
        mine = stage.logits(stage.forward(None, tokens))
        other = theirs(ids, attention_mask=valid, position_ids=tokens.positions).logits
    assert (mine - other)[valid.bool()].abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_read_by_transformers_as_the_same_model(family: str, tmp_path: Path):
    import transformers

    theirs = saved(family, tmp_path)
    ours = config_of(Llama(config=str(tmp_path)), causal=True)
    again = transformers.AutoConfig.for_model(**ours)
    words = (*SIZES, "rope_parameters", "tie_word_embeddings")
    assert {w: getattr(again, w) for w in words} == {w: getattr(theirs.config, w) for w in words}
    assert ours["architectures"] == [type(theirs).__name__]


KIN = {
    "biases": Llama(layers=4, hidden=32, heads=4, ffn=48, vocabulary=64, qkv_bias=True),
    "norms, other heads, stretched": Llama(
        layers=4, hidden=32, heads=4, ffn=48, vocabulary=64, kv_heads=2, head_dim=16, qk_norm=True,
        rope_scaling=Llama3Rope(factor=4.0, original_context=16),
    ),
}  # fmt: skip
EACH = [pytest.param("biases", marks=pytest.mark.slow), "norms, other heads, stretched"]


@pytest.mark.parametrize("kind", EACH)
def test_every_layout_has_one_processs_logits(kind: str):
    ids = np.random.default_rng(3).integers(0, 64, (4, 24))
    valid = np.ones_like(ids)
    valid[2, :7] = 0
    wholes: list[np.ndarray] = []
    for world, layouts in (
        (1, [Layout()]),
        (2, [Layout(pipeline=2), Layout(tensor=2)]),
    ):
        wholes += run_ranks(all_logits, world, KIN[kind], layouts, ids, valid)[0]
    for other in wholes[1:]:
        assert np.abs(other - wholes[0]).max() < 1e-5


def kin_job(kind: str, layout: Layout) -> Job:
    base = named()["tiny-cpu-1"]
    body = msgspec.structs.replace(KIN[kind], vocabulary=260)
    asked = msgspec.structs.replace(
        base,
        actor=body,
        critic=body,
        devices=layout.world,
        work=msgspec.structs.replace(base.work, batch=8, answer=8),
        choice=Choice(training=layout, generation=layout),
        running=msgspec.structs.replace(base.running, steps=1, dtype="float64"),
    )
    return Job(make_plan(asked, "given"), asked.ppo, asked.running, 0, "gloo")


@pytest.mark.parametrize("kind", EACH)
def test_slices_have_one_processs_gradient(kind: str):
    """Norms of heads are on every slice for its own heads: their gradients are summed."""
    (one,) = run_ranks(learn_jobs, 1, [kin_job(kind, Layout())])[0]
    (two,) = run_ranks(learn_jobs, 2, [kin_job(kind, Layout(tensor=2))])[0]
    assert one.digest == two.digest
    for name, gradient in one.gradients[0].items():
        apart = np.linalg.norm(two.gradients[0][name] - gradient) / np.linalg.norm(gradient)
        assert apart < 1e-10


def test_a_qwen3_folder_goes_in_is_aligned_and_comes_out(tmp_path: Path):
    """With its tokenizer's files and words of the configuration that are not ours."""
    import transformers

    config = transformers.Qwen3Config(**{**SIZES, "vocab_size": 260, "head_dim": 16,
        "max_position_embeddings": 123, "tie_word_embeddings": True})  # fmt: skip
    transformers.Qwen3ForCausalLM(config).save_pretrained(tmp_path / "in")
    (tmp_path / "in" / "tokenizer_config.json").write_text("{}")
    base = named()["tiny-cpu-1"]
    layout = Layout(tensor=2)
    asked = msgspec.structs.replace(
        base,
        actor=str(tmp_path / "in"),
        critic=Llama(config=str(tmp_path / "in"), layers=1),
        devices=2,
        choice=Choice(training=layout, generation=Layout(pipeline=2)),
        running=msgspec.structs.replace(
            base.running, steps=1, actor_weights=str(tmp_path / "in"), save_to=str(tmp_path / "out")
        ),
    )
    assert asked.actor_model.qk_norm
    launch(Job(make_plan(asked, "given"), asked.ppo, asked.running, 0, "gloo"))
    out = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert type(out).__name__ == "Qwen3ForCausalLM"
    assert out.config.max_position_embeddings == 123
    assert (tmp_path / "out" / "tokenizer_config.json").is_file()
    before = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "in")
    moved = out.model.norm.weight - before.model.norm.weight
    assert 0 < float(moved.detach().abs().max()) < 1e-3


@pytest.mark.parametrize(
    ("name", "total"),
    [("Qwen3-8B", 8190735360), ("Llama-3.1-8B", 8030261248), ("Qwen2.5-7B", 7615616512)],
)
def test_a_name_of_the_catalogue_is_a_model_of_so_many_parameters(name: str, total: int):
    """Published counts, head and embedding apart."""
    experiment = Experiment(name="mine", actor=name, critic=name, devices=8)
    assert parameters(experiment.actor_model) == total


def test_a_question_of_catalogue_and_data_sheet_is_planned_and_says_its_origin(tmp_path: Path):
    path = tmp_path / "my.toml"
    path.write_text(
        'name = "mine"\ndevice = "H100"\ndevices = 16\n[actor]\nconfig = "Qwen3-8B"\n'
        '[critic]\nconfig = "Qwen3-8B"\nlayers = 18\n'
    )
    asked = read_toml(path, Experiment)
    assert asked.machines.memory_gib == pytest.approx(0.9 * 80e9 / GIB)
    assert asked.critic_model.layers == 18
    done = answer.plan(Case(verb="plan", experiment=asked), Ask())
    assert done.plan.world == 16
    assert "analytic profile of H100" in done.summary
    path.write_text(to_toml(asked))
    assert read_toml(path, Experiment) == asked
    measured = answer.plan(Case(verb="plan", experiment=named()["align-7b-7b"]), Ask())
    assert "analytic" not in measured.summary


def test_what_cannot_be_planned_is_refused_by_name(tmp_path: Path):
    for change, message in (
        ({"actor": "Gemma-2-9B"}, "family gemma2 are not planned or run here"),
        ({"actor": "Qwen9"}, "expected one of .*350m.*Qwen9"),
        ({"device": "H100", "cluster": "phoenix"}, "leave one of them out"),
        ({"device": "H1000"}, "H100"),
    ):
        with pytest.raises(InputError, match=message) as error:
            _ = Experiment(name="mine", **change).machines
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="layers is 0, expected 1 or more"):
        Llama()
    narrow = Llama(layers=2, hidden=32, heads=4, ffn=48, window=16)
    work = Workload(batch=8, micro_batch=1, decode_micro_batch=8)
    long = Experiment(name="long", actor=narrow, critic=narrow, work=work, devices=1)
    with pytest.raises(InputError, match="attends to 16 tokens back"):
        make_plan(long, "given")


def test_a_device_of_another_memory_and_constants_of_ones_own_are_kept():
    own = Cluster(device="A100", devices=4, memory_gib=30.0)
    assert own.memory_gib == 30.0
    assert own.constants.peak_tflops == 312
    assert own.constants.between_gbps is not None
    assert own.constants.between_gbps < own.constants.gather_gbps
