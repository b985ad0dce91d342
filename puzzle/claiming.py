"""The claims of this package (`claims.toml`)."""

from importlib import resources
from pathlib import Path

from common.claims import Claim, load


def load_claims() -> tuple[Claim, ...]:
    """Return all claims."""
    with resources.as_file(resources.files("puzzle").joinpath("claims.toml")) as path:
        return load(Path(path))
