"""Shards of stages together compute what the model in one process computes."""

import threading
from pathlib import Path

import pytest
import torch

from beta.inputs.profile import Config, profiles_of
from beta.inputs.shapes import SHAPES, Shape
from beta.run.deploy import described
from beta.run.reference import TOLERANCE, Reference
from beta.run.stage import Shard, make_stage
from beta.run.timing import Task, time_stages
from beta.run.weights import RandomWeights, bert_of, read_bert
from beta.run.worker import tokens_of
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
    x = torch.tensor([tokens])
    for stage in range(pp):
        adder, results = Adder(op), dict[int, torch.Tensor]()

        def work(rank: int, stage=stage, adder=adder, results=results, given=x) -> None:
            part = make_stage(shape, seed, Shard(stage, pp, rank, op), total=adder.of(rank))
            with torch.inference_mode():
                results[rank] = part(given)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(op)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(torch.equal(results[0], results[rank]) for rank in range(op))
        x = results[0]
    return x[0].tolist()


@pytest.mark.parametrize("op", [1, 2, 4])
@pytest.mark.parametrize("pp", [1, 2, 3, 4])
def test_every_split_equals_the_model_in_one_process(op: int, pp: int):
    tokens = [(7 * i) % 1000 for i in range(20)]
    found, expect = served(SHAPE, 3, op, pp, tokens), Reference(SHAPE, 3).logits(tokens)
    assert found == pytest.approx(expect, abs=TOLERANCE)
    assert found != pytest.approx(Reference(SHAPE, 4).logits(tokens), abs=TOLERANCE)


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


def test_other_architectures_come_as_a_whole(tmp_path: Path):
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, vocab_size=50)
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    shape = described(Shape(folder=str(tmp_path)))
    expect = Reference(shape, 0).logits([1, 2, 3])
    assert served(shape, 0, 1, 1, [1, 2, 3]) == pytest.approx(expect, abs=TOLERANCE)
    with pytest.raises(InputError, match="only BERT can be split"):
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
