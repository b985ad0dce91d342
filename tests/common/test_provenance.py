"""Facts of a run: told without heavy imports, saved once, told apart by machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from common import provenance

ROOT = Path(provenance.__file__).parents[1]


def facts_of_a_fresh_process(code: str, **env: str) -> dict[str, object]:
    prelude = "import json, sys\nfrom common import provenance\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + code],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_facts_name_code_versions_and_hardware():
    facts = provenance.collect()
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["versions"]["msgspec"] == msgspec.__version__
    assert facts["hardware"]["cores"] == os.cpu_count()
    assert facts["hardware"]["ram_GiB"] >= 1
    assert facts["hardware"]["cpu"]


def test_what_is_not_installed_is_null_and_apex_is_always_told():
    versions = provenance.collect()["versions"]
    assert {"torch", "numba", "highspy", "ray", "megatron-core", "apex"} <= versions.keys()
    assert all(value is None or value[0].isdigit() for value in versions.values())


def test_facts_import_nothing_heavy():
    heavy = ["torch", "numpy", "numba", "highspy", "ray", "matplotlib"]
    code = f"provenance.collect(); print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    assert facts_of_a_fresh_process(code) == []


def test_an_image_is_told_by_its_environment():
    env = {"QUINTET_IMAGE": "i", "QUINTET_REVISION": "r", "QUINTET_BASE": "b"}
    facts = facts_of_a_fresh_process("print(json.dumps(provenance.collect()))", **env)
    assert [facts[key] for key in ("image", "revision", "base")] == ["i", "r", "b"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_a_checkout_is_told_by_its_commit():
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if head.returncode:
        pytest.skip(f"git does not answer here: {head.stderr.strip()}")
    code = "print(json.dumps(provenance.collect()))"
    revision = facts_of_a_fresh_process(code, QUINTET_REVISION="")["revision"]
    assert str(revision).removesuffix("-dirty") == head.stdout.strip()


def test_facts_are_saved_once_and_found_by_id(tmp_path: Path):
    name = provenance.save(tmp_path)
    assert provenance.save(tmp_path) == name
    assert len((tmp_path / "provenance.jsonl").read_text().splitlines()) == 1
    assert provenance.saved(tmp_path) == {name: {"id": name, **provenance.collect()}}


def test_the_id_begins_with_the_hardware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    facts = provenance.collect()
    names = []
    for change in ({}, {"image": "x"}, {"hardware": {"cpu": "another", "gpus": ["H100"]}}):
        monkeypatch.setattr(provenance, "collect", lambda change=change: facts | change)
        names.append(provenance.save(tmp_path))
    here, image, elsewhere = names
    assert here != image
    assert here.split("-")[0] == image.split("-")[0] != elsewhere.split("-")[0]


def test_a_line_that_a_crash_broke_is_written_again(tmp_path: Path):
    name, path = provenance.save(tmp_path), tmp_path / "provenance.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert provenance.save(tmp_path) == name
    assert list(provenance.saved(tmp_path)) == [name]
