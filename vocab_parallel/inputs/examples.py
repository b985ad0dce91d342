"""Experiments to start one's own from."""

from vocab_parallel.inputs.experiment import Experiment, Pipeline, Training
from vocab_parallel.inputs.model import Model


def examples() -> dict[str, Experiment]:
    """Return them by name."""
    return {e.name: e for e in (multilingual(), gemma(), *map(tiny_cpu, (1, 2, 4)), words())}


def hardware(experiment: Experiment) -> str:
    """Return what an experiment needs."""
    if "cpu" in experiment.name:
        return "CPU"
    return f"CPU to plan and simulate, {experiment.pipeline.ranks} GPUs to run"


def multilingual() -> Experiment:
    """Return a GPT with a vocabulary for many languages: its output layer weighs as four others."""
    return Experiment(
        name="multilingual-8",
        about="32 layers, hidden 4096, a vocabulary of 256k on 8 GPUs of one node",
        model=Model(layers=32, hidden=4096, heads=32, sequence=4096, vocabulary=256000),
        pipeline=Pipeline(ranks=8, batches=64, batch_size=1),
        training=Training(dtype="bfloat16", learning_rate=3e-4),
    )


def gemma() -> Experiment:
    """Return a model by its config and a device by its data sheet."""
    return Experiment(
        name="gemma-8",
        about="Gemma 3 12B, its sizes by config.json's words, on 8 H100 of one node",
        model=Model(config="Gemma-3-12B-it", sequence=4096),
        device="H100",
        pipeline=Pipeline(ranks=8, batches=64, batch_size=1),
        training=Training(dtype="bfloat16", learning_rate=1e-4),
    )


def tiny_cpu(ranks: int) -> Experiment:
    """Return a small GPT whose vocabulary outweighs its layers, for CPU ranks."""
    return Experiment(
        name=f"tiny-cpu-{ranks}",
        about=f"a small GPT really trained on {ranks} CPU ranks, float64",
        model=Model(layers=8, hidden=64, heads=4, sequence=64, vocabulary=1003),
        pipeline=Pipeline(ranks=ranks, batches=8, batch_size=2),
        training=Training(dtype="float64", steps=6, learning_rate=3e-3, timeout_s=120.0),
    )


def words() -> Experiment:
    """Return a real text in GPT-2's tokens, whose matrices outweigh a small model's layers."""
    return Experiment(
        name="words-cpu-2",
        about="a real text in GPT-2's 50257 tokens on 2 CPU ranks",
        model=Model(layers=4, hidden=32, heads=2, sequence=32, vocabulary=50257, tied=True),
        pipeline=Pipeline(ranks=2, batches=4, batch_size=2),
        training=Training(steps=20, learning_rate=3e-3, tokens="sonnets-gpt2", timeout_s=300.0),
    )
