"""The model in one process, by transformers, with the same weights: what served ones must equal."""

from pathlib import Path

import msgspec
import torch

from beta.inputs.shapes import Shape
from beta.run.weights import open_model

TOLERANCE = 1e-4
"""Largest difference of a logit: sums in another order, in single precision."""


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
            assert bert is not None
            found = BertForSequenceClassification(BertConfig(**msgspec.to_builtins(bert)))
            names = found.state_dict()
            found.load_state_dict({name: weights.tensor(name) for name in names})
        self.model = found.float().eval()

    def logits(self, tokens: list[int]) -> list[float]:
        """Return the logits of one request."""
        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([tokens])).logits[0].tolist()
