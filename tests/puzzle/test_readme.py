"""What the README shows works as it stands there."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from common.case import read_toml
from puzzle.inputs.experiment import Experiment
from puzzle.inputs.ppo import Ppo, Running
from puzzle.run.rewards import Rewards
from puzzle.run.rows import load_rows

README = Path(__file__).parents[2] / "puzzle" / "README.md"


def shown(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_question_of_names_is_read(tmp_path: Path):
    (text,) = [block for block in shown("toml") if "device =" in block]
    (tmp_path / "mine.toml").write_text(text)
    asked = read_toml(tmp_path / "mine.toml", Experiment)
    assert (asked.actor_model.layers, asked.world, asked.machines.devices_per_node) == (36, 16, 8)


def test_the_verifier_scores_and_its_settings_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (code,) = [block for block in shown("python") if "def right" in block]
    assert len(code.splitlines()) <= 20
    Path("verify.py").write_text(code)
    (text,) = [block for block in shown("toml") if "verify.py" in block]
    Path("part.toml").write_text(text)
    parts = msgspec.toml.decode(Path("part.toml").read_bytes())
    assert msgspec.convert(parts["ppo"], Ppo).samples == 8
    running = msgspec.convert(parts["running"], Running)
    (row,) = re.findall(r'(\{"prompt".*?\})', text)
    Path("sums.jsonl").write_text(json.dumps(json.loads(row)) + "\n")
    rows = load_rows(running.prompts)
    made = Rewards(running)
    scores = made.score([*({**rows[0], "answer": a} for a in ("it is 4", "4 or 5", ""))])
    made.close()
    assert scores == pytest.approx([1 + 0.1 / 7, 0.2 / 6, 0.0])
