"""A Qwen3 folder goes into Puzzle, is aligned, comes out, and Helix serves it, by command lines."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
if not all((ROOT / package).is_dir() for package in ("helix", "puzzle")):
    pytest.skip("an image has one package", allow_module_level=True)
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.helix.local_checkpoint import continued, save_checkpoint  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALIGN = """
name = "aligned"
cluster = "cpu"
devices = 2
method = "given"
[actor]
config = "{given}"
[critic]
config = "{given}"
[work]
batch = 8
prompt = 32
answer = 12
micro_batch = 2
inference_tokens = 96
prefill_micro_batch = 2
decode_micro_batch = 4
[choice.training]
data = 2
[choice.generation]
tensor = 2
[ppo]
algorithm = "grpo"
samples = 4
[running]
steps = 2
reward = "letters:aeiou"
tokenizer = "{given}"
actor_weights = "{given}"
save_to = "{out}"
[running.actor_optimizer]
rate = 1e-2
"""
SERVE = """
name = "served"
[model]
config = "{out}"
[cluster]
coordinator_region = "here"
machines = [{{ kind = "L4", count = 2, region = "here" }}]
default_link = {{ gbit_per_s = 10.0, latency_ms = 0.1 }}
[profile]
source = "roofline"
kinds = {{ L4 = {{ memory_gb = 0.05, most_layers = 3 }} }}
[search]
method = "petals"
[serve]
weights = "{out}"
port = {port}
"""


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A small Qwen3, with a tokenizer of bytes and a chat template."""
    save_checkpoint(tmp_path / "llama")
    folder = tmp_path / "given"
    transformers.AutoTokenizer.from_pretrained(tmp_path / "llama").save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=260, hidden_size=64, intermediate_size=96, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=512,
        initializer_range=0.2, bos_token_id=256, eos_token_id=257, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def written(path: Path, text: str, **words: object) -> Path:
    path.write_text(text.format(**words))
    return path


def asked(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def opened(port: int, service: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert service.poll() is None
        try:
            if asked(port, "/health")["status"] == "ok":
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the service does not open")


def test_a_folder_goes_through_both(given: Path, tmp_path: Path):
    out, here = tmp_path / "out", {"cwd": tmp_path, "text": True}
    align = written(tmp_path / "align.toml", ALIGN, given=given, out=out)
    path = {"PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    run = [sys.executable, "-m", "puzzle", "run", str(align)]
    done = subprocess.run(run, env=os.environ | path, capture_output=True, check=False, **here)
    assert done.returncode == 0, done.stderr
    before = transformers.AutoModelForCausalLM.from_pretrained(given).eval()
    after = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    assert type(after).__name__ == "Qwen3ForCausalLM"
    words = transformers.AutoTokenizer.from_pretrained(out)
    chat = [{"role": "user", "content": "say a word"}]
    ids = words.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    aligned = continued(after, ids, 12)
    assert aligned != continued(before, ids, 12)  # it has learnt something

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = written(tmp_path / "serve.toml", SERVE, out=out, port=port)
    run = [sys.executable, "-m", "helix", "run", str(serve)]
    service = subprocess.Popen(run, env=os.environ | path, **here)
    try:
        opened(port, service)
        body = {"messages": chat, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        answer = asked(port, "/v1/chat/completions", body)
        assert answer["usage"]["prompt_tokens"] == len(ids)
        assert answer["choices"][0]["message"]["content"] == words.decode(
            aligned, skip_special_tokens=True
        )
        holding = json.loads(next((tmp_path / "results/helix/plans").glob("*.json")).read_text())
        assert holding["services"][0]["intervals"] == [[0, 3], [3, 6]]
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 0
