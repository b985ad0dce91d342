"""What a Hugging Face folder says of itself, read before anything is measured or loaded."""

import json
from pathlib import Path
from typing import Any

from common.errors import InputError

HEAD = "ForSequenceClassification"


def classifier_config(folder: Path) -> dict[str, Any]:
    """Return a folder's configuration. Raises InputError unless it is a sequence classifier's.

    A head that is missing would be drawn at random, so a model of another kind is refused by what
    its configuration says it was saved as; and one that answers in text is none at all.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: no configuration of a sequence classifier: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(f"{path}: no configuration of a sequence classifier: no model_type")
    named = config.get("architectures") or ()
    if config.get("is_encoder_decoder"):
        raise InputError(
            f"{path}: a {config['model_type']} has an encoder and a decoder; served are classifiers"
            " of one of them"
        )
    if named and not any(str(name).endswith(HEAD) for name in named):
        raise InputError(
            f"{path}: it holds {named[0]}, whose classifier's head would be random; save it as"
            f" ...{HEAD}"
        )
    return config


def labels_of(config: dict[str, Any]) -> int:
    """Return how many classes a configuration has."""
    return int(config.get("num_labels") or len(config.get("id2label") or (0, 1)))
