"""Text by the tokenizer that lies in a model's folder, with the marks that it adds."""

from pathlib import Path
from typing import Any

from beta.run.specs import ModelSpec
from common.errors import InputError

FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json")
"""One of them lies where a tokenizer was saved."""


class Tokenizers:
    """The tokenizers of all folders among some models, each read once."""

    def __init__(self, models: tuple[ModelSpec, ...]) -> None:
        folders = {model.shape.folder for model in models if model.shape.folder}
        self._of = {folder: _read(Path(folder)) for folder in sorted(folders) if _has(Path(folder))}

    def tokens(self, model: ModelSpec, text: str) -> list[int]:
        """Return a text's token ids, never cut. Raises InputError where there is no tokenizer."""
        tokenizer = self._of.get(model.shape.folder)
        if tokenizer is None:
            raise InputError(f"{model.name} has no tokenizer; send tokens in place of text")
        return [*tokenizer(text, truncation=False, verbose=False)["input_ids"]]


def _has(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES)


def _read(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder}: its tokenizer cannot be read: {error}") from error
