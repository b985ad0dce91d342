"""Shards of stages together compute what the model in one process computes."""

import json
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from beta.inputs.examples import serve
from beta.inputs.experiment import ModelSettings
from beta.inputs.profile import Config, profiles_of
from beta.inputs.shapes import SHAPES, Shape
from beta.run.deploy import described
from beta.run.profile import measure_experiment
from beta.run.reference import TOLERANCE, Reference, layer_difference
from beta.run.specs import GroupSpec, ModelSpec
from beta.run.stage import Shard, make_stage
from beta.run.timing import Task, time_stages
from beta.run.weights import RandomWeights, bert_of, read_bert
from beta.run.worker import StageWorker, padded, tokens_of
from common.errors import InputError

SHAPE = SHAPES["bert-micro"]


class Adder:
    """Adds up the shards' tensors, each in a thread of its own."""

    def __init__(self, parts: int) -> None:
        self.barrier, self.held = threading.Barrier(parts), dict[int, torch.Tensor]()

    def of(self, rank: int):
        def total(x: torch.Tensor) -> torch.Tensor:
            self.held[rank] = x
            self.barrier.wait()
            summed = torch.stack([self.held[r] for r in sorted(self.held)]).sum(0)
            self.barrier.wait()
            return summed

        return total


def served(shape: Shape, seed: int, op: int, pp: int, tokens: list[int]) -> list[float]:
    return batch_served(shape, seed, op, pp, [tokens])[0]


def batch_served(
    shape: Shape, seed: int, op: int, pp: int, tokens: list[list[int]]
) -> list[list[float]]:
    x, lengths = padded(tokens), [len(each) for each in tokens]
    for stage in range(pp):
        adder, results = Adder(op), dict[int, torch.Tensor]()

        def work(rank: int, stage=stage, adder=adder, results=results, given=x) -> None:
            part = make_stage(shape, seed, Shard(stage, pp, rank, op), total=adder.of(rank))
            with torch.inference_mode():
                results[rank] = part(given, lengths)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(op)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(torch.equal(results[0], results[rank]) for rank in range(op))
        x = results[0]
    return x.tolist()


@pytest.mark.parametrize("op", [1, 2, 4])
@pytest.mark.parametrize("pp", [1, 2, 3, 4])
def test_every_split_equals_the_model_in_one_process(op: int, pp: int):
    tokens = [(7 * i) % 1000 for i in range(20)]
    found, expect = served(SHAPE, 3, op, pp, tokens), Reference(SHAPE, 3).logits(tokens)
    assert found == pytest.approx(expect, abs=TOLERANCE)
    assert found != pytest.approx(Reference(SHAPE, 4).logits(tokens), abs=TOLERANCE)


UNLIKE = [[5, 6, 7, 8], [1], [9, 8, 7, 6, 5, 4, 3]]


@pytest.mark.parametrize(("op", "pp"), [(1, 1), (2, 2)])
def test_a_batch_of_unlike_lengths_is_answered_as_each_alone(op: int, pp: int):
    found, alone = batch_served(SHAPE, 3, op, pp, UNLIKE), Reference(SHAPE, 3)
    for tokens, logits in zip(UNLIKE, found, strict=True):
        assert logits == pytest.approx(alone.logits(tokens), abs=TOLERANCE)


def test_a_worker_carries_out_a_batch_and_waits_as_long_as_its_size_takes():
    stage_s = {0: {1: (0.01,), 3: (0.05,)}}
    group = GroupSpec(number=0, op=1, pp=1, models=(0,), stage_s=stage_s)
    model = ModelSpec(name="m", shape=SHAPE, seed=3, slo_s=None)
    worker = StageWorker(group, 0, "gloo", 0.0, 1)
    worker.load(0, model)
    found = worker.step(0, UNLIKE, 0.0, skip=False)
    assert np.allclose(found, [Reference(SHAPE, 3).logits(t) for t in UNLIKE], atol=TOLERANCE)
    assert worker.step(0, UNLIKE, 0.0, skip=True) is None
    waiting = StageWorker(group, 0, "gloo", 2.0, 1)
    waiting.load(0, model)
    begun = time.monotonic()
    assert waiting.step(0, UNLIKE, begun, skip=False) == [[], [], []]
    assert waiting.free == pytest.approx(begun + 2 * 0.05)
    assert time.monotonic() >= waiting.free


def saved(folder: Path) -> Shape:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(**sizes, intermediate_size=48, vocab_size=50, num_labels=3, hidden_act="relu")
    )
    model.save_pretrained(folder)
    return described(Shape(sequence=16, folder=str(folder)))


@pytest.mark.parametrize(("op", "pp"), [(1, 1), (2, 1), (2, 3)])
def test_a_folder_of_hugging_face_is_split_alike(tmp_path: Path, op: int, pp: int):
    shape = saved(tmp_path)
    assert (shape.vocabulary, shape.sequence) == (50, 16)
    assert max(tokens_of(shape)) < 50
    tokens = [3, 1, 4, 1, 5, 9]
    expect = Reference(shape, 0).logits(tokens)
    assert len(expect) == 3
    assert served(shape, 0, op, pp, tokens) == pytest.approx(expect, abs=TOLERANCE)


ENCODER = {"num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 50}
LIKE_BERT = {
    "roberta": {"hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 20},
    "xlm-roberta": {"hidden_size": 32, "intermediate_size": 48, "pad_token_id": 3},
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4, "activation": "relu"},
}


@pytest.mark.parametrize("kind", LIKE_BERT)
@pytest.mark.parametrize(("op", "pp"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_encoders_of_berts_shape_are_split_alike(tmp_path: Path, kind: str, op: int, pp: int):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **ENCODER, **LIKE_BERT[kind], num_labels=3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    shape = described(Shape(folder=str(tmp_path)))
    assert (shape.vocabulary, shape.labels) == (50, 3)
    assert shape.sequence == (18 if kind == "roberta" else 128)
    asked = [[5, 3, 7, 1], [9], [1, 2, 3, 4, 5, 6]]  # the paddings' ids too
    reference = Reference(shape, 0)
    each = [reference.logits(tokens) for tokens in asked]
    assert np.ptp(each) > 10 * TOLERANCE
    assert np.allclose(batch_served(shape, 0, op, pp, asked), each, atol=TOLERANCE)
    model = ModelSpec(name="m", shape=shape, seed=0, slo_s=None)
    assert layer_difference(make_stage(shape, 0, Shard(0, 1, 0, 1)), model) < TOLERANCE


def small_folder(kind: str, auto: str, folder: Path, sizes: dict[str, int]) -> None:
    import transformers

    config = transformers.AutoConfig.for_model(kind, vocab_size=50, **sizes)
    getattr(transformers, auto).from_config(config).save_pretrained(folder)


LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = LAYERS | {"intermediate_size": 48}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4}


@pytest.mark.parametrize(
    ("kind", "auto", "sizes", "said"),
    [
        ("llama", "AutoModelForCausalLM", LLAMA, "holds LlamaForCausalLM.*would be random"),
        ("bert", "AutoModelForMaskedLM", LLAMA, "holds BertForMaskedLM.*would be random"),
        ("t5", "AutoModelForSeq2SeqLM", T5, "a t5 has an encoder and a decoder"),
    ],
)
def test_folders_without_a_classifiers_head_are_refused_in_a_line(
    tmp_path: Path, kind: str, auto: str, sizes: dict[str, int], said: str
):
    small_folder(kind, auto, tmp_path, sizes)
    with pytest.raises(InputError, match=said):
        described(Shape(folder=str(tmp_path)))


def test_a_missing_head_is_never_drawn_at_random(tmp_path: Path):
    small_folder("llama", "AutoModelForCausalLM", tmp_path, LLAMA)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text()) | {"architectures": ["LlamaForSequenceClassification"]}
    path.write_text(json.dumps(config))
    shape = described(Shape(folder=str(tmp_path)))
    with pytest.raises(InputError, match=r"no tensor score\.weight; it would be random"):
        make_stage(shape, 0, Shard(0, 1, 0, 1))


def test_a_wrong_folder_costs_no_profile_measured_before(tmp_path: Path):
    small_folder("t5", "AutoModelForSeq2SeqLM", tmp_path / "t5", T5)
    shapes = {"bert-micro": SHAPE, "other": Shape(folder=str(tmp_path / "t5"))}
    models = (ModelSettings(types=("bert-micro", "other"), count=2, rate=1.0),)
    experiment = msgspec.structs.replace(serve(), models=models, shapes=shapes)
    (tmp_path / "kept.csv").write_text("measured before")
    with pytest.raises(InputError, match="an encoder and a decoder"):
        measure_experiment(experiment, tmp_path / "kept.csv")
    assert (tmp_path / "kept.csv").read_text() == "measured before"


def test_other_architectures_come_as_a_whole(tmp_path: Path):
    small_folder("llama", "AutoModelForSequenceClassification", tmp_path, LLAMA)
    shape = described(Shape(folder=str(tmp_path)))
    expect = Reference(shape, 0).logits([1, 2, 3])
    assert served(shape, 0, 1, 1, [1, 2, 3]) == pytest.approx(expect, abs=TOLERANCE)
    each = [Reference(shape, 0).logits(tokens) for tokens in UNLIKE]
    assert np.allclose(batch_served(shape, 0, 1, 1, UNLIKE), each, atol=TOLERANCE)
    with pytest.raises(InputError, match="only BERT and its like can be split"):
        make_stage(shape, 0, Shard(0, 2, 0, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no configuration of a sequence classifier"),
        ("[]", "no configuration of a sequence classifier"),
        ('{"vocab_size": "many"}', "no configuration of a sequence classifier"),
        ('{"model_type": "bert", "vocab_size": 9}', "no configuration of a BERT classifier"),
    ],
)
def test_folders_without_a_usable_configuration_are_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=rf"config\.json: {message}"):
        read_bert(Path(described(Shape(folder=str(tmp_path))).folder))


@pytest.mark.parametrize(
    ("shard", "message"),
    [(Shard(0, 5, 0, 1), "4 layers cannot make 5"), (Shard(0, 1, 0, 3), "does not divide 4 heads")],
)
def test_splits_that_do_not_fit_are_refused(shard: Shard, message: str):
    with pytest.raises(InputError, match=message):
        make_stage(SHAPE, 0, shard)


def test_a_layer_of_a_large_model_is_compared_with_the_references():
    model = ModelSpec(name="m", shape=SHAPE, seed=3, slo_s=None)
    for stage in range(2):
        part = make_stage(SHAPE, 3, Shard(stage, 2, 0, 1))
        assert layer_difference(part, model) < TOLERANCE
        assert layer_difference(part, msgspec.structs.replace(model, seed=4)) > 100 * TOLERANCE


def test_a_tensor_is_made_alone_and_always_the_same():
    first, second = (RandomWeights(bert_of(SHAPE), seed) for seed in (1, 2))
    name = "bert.encoder.layer.2.output.dense.weight"
    assert first.tensor(name).shape == (64, 256)
    assert torch.equal(first.tensor(name), RandomWeights(bert_of(SHAPE), 1).tensor(name))
    assert not torch.equal(first.tensor(name), second.tensor(name))
    assert float(first.tensor(name).std()) == pytest.approx(0.02, rel=0.05)


def test_profiles_have_every_stage_with_its_exact_weights():
    rows = time_stages(Task("bert-micro", SHAPE, SHAPE.layers, 1, (1, 2, 4), (1, 2), 1))
    profile = profiles_of(rows, "test")["bert-micro"]
    weights = (
        sum(p.numel() for p in Reference(SHAPE, 0).model.state_dict().values()) - SHAPE.hidden
    )  # one of the two token types
    for config, record in profile.records.items():
        assert config in (Config(1, 1), Config(1, 2), Config(1, 4))
        assert sum(record.weight_bytes or ()) == 4 * (weights + SHAPE.hidden)
        assert set(record.stage_s) == {1, 2}
        assert all(len(stages) == config.pp for stages in record.stage_s.values())
