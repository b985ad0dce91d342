"""The model in one process, by transformers, with the same weights: what served ones must equal."""

from pathlib import Path
from typing import Any

import msgspec
import torch

from beta.inputs.shapes import Shape
from beta.run.specs import ModelSpec
from beta.run.stage import BertStage, Stage
from beta.run.weights import Bert, open_model

SAMPLED_TOKENS = 32
"""Of the input that a sampled layer is compared with."""
TOLERANCE = 1e-4
"""Largest difference of a logit: sums in another order, in single precision."""


def layer_difference(stage: Stage, model: ModelSpec) -> float:
    """Return by how much a stage's first layer is off transformers' with the same weights.

    All shards of the stage must call it at once, as they add up. Relative to the output's largest
    value, which layer norms keep at a few units; 0 of a stage without layers or of a whole model,
    which is transformers' own.
    """
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    if not isinstance(stage, BertStage) or not stage.layers:
        return 0.0
    layer, (bert, weights) = stage.layers[0], open_model(model.shape, model.seed)
    sizes: dict[str, Any] = {**_sizes(bert), "attn_implementation": "eager"}
    reference = BertLayer(BertConfig(**sizes))
    prefix = f"bert.encoder.layer.{layer.number}"
    reference.load_state_dict(
        {name: weights.tensor(f"{prefix}.{name}") for name in reference.state_dict()}
    )
    shape = (1, min(model.shape.sequence, SAMPLED_TOKENS), stage.bert.hidden_size)
    given = torch.randn(shape, generator=torch.Generator().manual_seed(model.seed))
    with torch.inference_mode():
        found = layer(given.to(stage.place.device, stage.place.dtype)).float().cpu()
        expect = reference.eval()(given)
    expect = expect[0] if isinstance(expect, tuple) else expect
    return float((found - expect).abs().max() / expect.abs().max())


def _sizes(bert: Bert | None) -> dict[str, Any]:
    """Return what transformers calls a BERT's sizes."""
    assert bert is not None
    own = ("pooling", "first_position")
    return {k: v for k, v in msgspec.to_builtins(bert).items() if k not in own}


class Reference:
    """A model on this process's CPU, in single precision."""

    def __init__(self, shape: Shape, seed: int) -> None:
        from transformers import (
            AutoModelForSequenceClassification,
            BertConfig,
            BertForSequenceClassification,
        )
        from transformers.utils import logging

        logging.disable_progress_bar()
        bert, weights = open_model(shape, seed)
        if shape.folder:
            found = AutoModelForSequenceClassification.from_pretrained(
                Path(shape.folder), local_files_only=True
            )
        else:
            found = BertForSequenceClassification(BertConfig(**_sizes(bert)))
            names = found.state_dict()
            found.load_state_dict({name: weights.tensor(name) for name in names})
        self.model = found.float().eval()

    def logits(self, tokens: list[int]) -> list[float]:
        """Return the logits of one request."""
        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([tokens])).logits[0].tolist()
