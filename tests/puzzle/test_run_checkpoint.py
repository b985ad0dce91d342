"""Checkpoints: every byte is checked, and they go on only into the same question."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import InputError
from puzzle.inputs.experiment import Choice
from puzzle.inputs.layout import Layout
from puzzle.inputs.model import tensors
from puzzle.plan.slices import Slice
from puzzle.run.checkpoint_about import check_resume, read_about
from puzzle.run.checkpoint_files import checkpoint_weights
from puzzle.run.digests import SUMS
from puzzle.run.launch import check_job, launch
from puzzle.run.settings import Job
from tests.puzzle.test_run_resume import job

pytestmark = pytest.mark.timeout(600)

TWO = Choice(training=Layout(pipeline=2), generation=Layout(pipeline=2))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with checkpoints of two steps."""
    folder = tmp_path_factory.mktemp("checkpoints")
    launch(job(TWO, steps=2, checkpoint=str(folder), checkpoint_every=1))
    return folder


def copied(written: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    shutil.copytree(written, folder)
    return folder


def test_its_digests_are_those_of_sha256sum(written: Path):
    place = written / "step-00000002"
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", SUMS], cwd=place, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = {path.name for path in place.iterdir()} - {SUMS}
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == files


@pytest.mark.parametrize(
    "name",
    ["actor-p0-t0.safetensors", "critic-p1-t0.safetensors", "about.json", SUMS],
)
def test_one_flipped_byte_is_refused_with_the_files_name_and_a_remedy(
    name: str, written: Path, tmp_path: Path
):
    folder = copied(written, tmp_path)
    path = folder / "step-00000002" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        launch(job(TWO, steps=3, checkpoint=str(folder)))
    told = str(error.value)
    assert "\n" not in told
    assert "step-00000002" in told
    assert "damaged" in told or "missing" in told or "has no digest" in told
    assert f"delete the folder {folder / 'step-00000002'} to go on from step-00000001" in told
    if name != SUMS:
        assert str(path) in told
    shutil.rmtree(folder / "step-00000002")
    assert launch(job(TWO, steps=2, checkpoint=str(folder))).first_step == 1


def test_a_missing_piece_is_refused_and_a_lone_checkpoint_is_begun_anew(
    written: Path, tmp_path: Path
):
    folder = copied(written, tmp_path)
    shutil.rmtree(folder / "step-00000001")
    (folder / "step-00000002" / "actor-p1-t0.safetensors").unlink()
    with pytest.raises(InputError, match=r"actor-p1-t0.safetensors is missing.* to begin anew"):
        launch(job(TWO, steps=3, checkpoint=str(folder)))


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["critic-p1-t0.safetensors", "about.json", SUMS])
def test_a_damaged_checkpoint_is_passed_over_to_the_one_before_where_that_is_asked(
    name: str, written: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = copied(written, tmp_path)
    spoil(folder / "step-00000002" / name)
    with caplog.at_level("INFO", "puzzle"):
        done = launch(job(TWO, steps=2, checkpoint=str(folder), resume="last-whole"))
    assert done.first_step == 1
    damaged = folder / "step-00000002"
    assert f"{damaged if name == SUMS else damaged / name}" in caplog.text
    assert f"passed over; going on from {folder / 'step-00000001'}" in caplog.text
    check_resume(job(TWO, steps=2, checkpoint=str(folder)))  # the second was written anew


def test_no_whole_checkpoint_is_no_reason_to_begin_anew_unasked(written: Path, tmp_path: Path):
    folder = copied(written, tmp_path)
    for step in (1, 2):
        spoil(folder / f"step-0000000{step}" / "actor-p0-t0.safetensors")
    with pytest.raises(InputError, match=r"no other checkpoint of the 2 in .* is whole"):
        check_resume(job(TWO, steps=3, checkpoint=str(folder), resume="last-whole"))


def test_only_the_newest_checkpoints_are_kept(written: Path, tmp_path: Path):
    folder = copied(written, tmp_path)
    launch(job(TWO, steps=4, checkpoint=str(folder), checkpoint_every=1, checkpoint_keep=2))
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000003", "step-00000004"]


def test_what_an_ended_run_left_half_written_is_cleared(written: Path, tmp_path: Path):
    folder = copied(written, tmp_path)
    for name in ("step-00000001.part", "step-00000007.part"):
        (folder / name).mkdir()
        (folder / name / "actor-p0-t0.safetensors").write_bytes(b"half")
    launch(job(TWO, steps=3, checkpoint=str(folder)))
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"step-0000000{n}" for n in (1, 2, 3)]


def otherwise(made: Job, path: str, value: Any) -> Job:
    """Return a job with one setting changed, by its dotted name."""
    part, *inner = path.split(".")
    old = getattr(made, part) if part != "work" else made.plan.work
    data = msgspec.to_builtins(old)
    at = data
    for name in inner[:-1]:
        at = at[name]
    at[inner[-1]] = value
    new = msgspec.convert(data, type(old))
    if part == "work":
        return made._replace(plan=msgspec.structs.replace(made.plan, work=new))
    return made._replace(**{part: new})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("running.reward", "letters:xyz"),
        ("running.actor_optimizer.rate", 3e-4),
        ("running.critic_optimizer.clip", 0.5),
        ("running.sampling.temperature", 0.7),
        ("running.sampling.end_tokens", [2, 9]),
        ("ppo.kl", 0.2),
        ("ppo.mini_batch", 4),
        ("work.answer", 5),
    ],
)
def test_another_question_is_refused_in_one_line_that_names_it(
    path: str, value: Any, written: Path
):
    made = otherwise(job(TWO, steps=2, checkpoint=str(written)), path, value)
    with pytest.raises(InputError, match=f"was made with {path} = ") as error:
        check_job(made)
    assert "\n" not in str(error.value)


def test_other_prompts_are_refused_by_what_they_say_and_not_by_their_name(tmp_path: Path):
    one, same, other = (tmp_path / f"{name}.jsonl" for name in ("one", "same", "other"))
    for path in (one, same):
        path.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    other.write_text('{"prompt": "a"}\n{"prompt": "c"}\n')
    folder = str(tmp_path / "checkpoints")
    launch(job(Choice(), steps=1, checkpoint=folder, prompts=str(one)))
    check_job(job(Choice(), steps=1, checkpoint=folder, prompts=str(same)))
    with pytest.raises(InputError, match=r"was made with running\.prompts"):
        check_job(job(Choice(), steps=1, checkpoint=folder, prompts=str(other)))


def test_the_manner_may_change_and_is_told(written: Path):
    assert check_resume(job(TWO, steps=2)) == ""
    same = check_resume(job(TWO, steps=2, checkpoint=str(written)))
    assert same == f"going on from {written / 'step-00000002'}"
    slices = Choice(training=Layout(tensor=2), generation=Layout(tensor=2), schedule="sequential")
    told = check_resume(job(slices, steps=5, checkpoint=str(written)))
    assert "running.steps 2 to 5" in told
    assert "choice.training.tensor 1 to 2" in told
    assert "choice.schedule 'merged' to 'sequential'" in told


def test_what_a_run_adapts_goes_on_from_its_checkpoint(tmp_path: Path):
    ppo = {"kl_target": 0.01, "kl_horizon": 20.0, "normalise_rewards": "whiten",
           "normalise_values": True}  # fmt: skip

    def made(**running: Any) -> Job:
        plain = job(Choice(), steps=3, **running)
        return plain._replace(ppo=msgspec.structs.replace(plain.ppo, **ppo))

    whole = launch(made())
    assert len({step.kl_weight for step in whole.steps}) == 3
    launch(made(checkpoint=str(tmp_path), checkpoint_every=2))
    shutil.rmtree(tmp_path / "step-00000003")
    adapted = read_about(tmp_path / "step-00000002").adapted
    assert adapted.kl_weight == whole.steps[2].kl_weight
    assert adapted.scores.count == 16
    (last,) = launch(made(checkpoint=str(tmp_path))).steps
    for field in ("kl_weight", "reward", "actor_loss", "critic_loss", "actor_norm", "critic_norm"):
        assert getattr(last, field) == getattr(whole.steps[2], field), field


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_at_load(value: float, tmp_path: Path):
    folder = tmp_path / "aligned"
    made = job(Choice(), steps=1, save_to=str(folder))
    launch(made)
    (path,) = folder.glob("*.safetensors")
    content = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    content[name][5, 3] = value
    save_file(content, path, {"format": "pt"})
    with pytest.raises(InputError, match=rf"1 elements of {name} are NaN or infinite") as error:
        launch(job(Choice(), steps=1, actor_weights=str(folder)))
    assert "\n" not in str(error.value)
    read = checkpoint_weights(str(folder), made.plan.actor, "actor", 0)
    whole = tensors(made.plan.actor)[0]
    assert torch.isfinite(read(Slice(whole, 0, whole.shape[0]))).all()
