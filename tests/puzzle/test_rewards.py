"""Rewards of the user's own, in a process with a time limit; rows with messages."""

import json
from pathlib import Path

import msgspec
import pytest

from common.errors import InputError
from puzzle import experiments as named
from puzzle.inputs.experiment import Choice, Experiment
from puzzle.inputs.layout import Layout
from puzzle.inputs.ppo import RewardTerm, Running
from puzzle.plan.plans import make_plan
from puzzle.run.data import Bytes, HuggingFace, prompts_for
from puzzle.run.launch import launch
from puzzle.run.question import question_of
from puzzle.run.rewards import Rewards, Scored, check_rewards, models_score
from puzzle.run.rows import load_rows
from puzzle.run.settings import Job

pytestmark = pytest.mark.timeout(600)

MINE = '''
import os, time

def right(rows):
    """1 where the answer has the row's solution in it."""
    print("this is no score")
    return [float(row["solution"] in row["answer"]) for row in rows]

def picky(rows):
    if any(row["answer"] == "hang" for row in rows):
        time.sleep(60)
    if any(row["answer"] == "exit" for row in rows):
        os._exit(3)
    return [1.0 / len(row["answer"]) for row in rows]

def fewer(rows):
    return [1.0]

def endless(rows):
    return [float("inf")] * len(rows)

letters = lambda rows: [
    sum(c in "abcdefghijklmnopqrstuvwxyz " for c in r["answer"]) / len(r["answer"])
    if r["answer"] else 0.0 for r in rows]
number = 3
'''


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(MINE)
    return path


def score(spec: str, answers: list[str], **more: object) -> Scored:
    made = Rewards(Running(reward=spec, **more))
    try:
        ((_, program),) = made.programs
        return program.score([{"solution": "7", "answer": answer} for answer in answers])
    finally:
        made.close()


def test_a_function_reads_every_column_and_may_print(mine: Path):
    found = score(f"{mine}:right", ["it is 7", "8", "\ud83d 7"])
    assert found == ([1.0, 0.0, 1.0], [False] * 3, "")


def test_answers_at_which_it_raises_hangs_or_ends_are_counted_and_the_others_are_scored(
    mine: Path,
):
    spec, more = f"{mine}:picky", {"reward_on_failure": -1.0, "reward_timeout_s": 1.0}
    found = score(spec, ["ab", "", "abcd"], **more)
    assert found[:2] == ([0.5, -1.0, 0.25], [False, True, False])
    assert found.why.startswith("ZeroDivisionError")
    found = score(spec, ["ab", "hang", "abcd"], **more)
    assert found[:2] == ([0.5, -1.0, 0.25], [False, True, False])
    assert "no answer in 1 s" in found.why
    found = score(spec, ["exit", "abcd"], **more)
    assert found[:2] == ([-1.0, 0.25], [True, False])


def test_what_is_no_list_of_finite_scores_is_a_failure(mine: Path):
    assert score(f"{mine}:fewer", ["a", "b"])[:2] == ([1.0, 1.0], [False, False])  # one by one
    assert score(f"{mine}:endless", ["a"])[1] == [True]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "has no attribute 'none'"),
        ("number", "number is no function"),
        ("", "expected 'model', 'letters:...', or a function"),
    ],
)
def test_a_function_that_cannot_be_had_is_refused_before_any_rank(
    name: str, message: str, mine: Path
):
    with pytest.raises(InputError, match=message) as error:
        check_rewards(Running(reward=f"{mine}:{name}"), [{"prompt": "x"}])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="No module named 'nowhere'"):
        check_rewards(Running(reward="nowhere:score"), [{"prompt": "x"}])
    with pytest.raises(InputError, match="FileNotFoundError"):
        check_rewards(Running(reward="nowhere.py:score"), [{"prompt": "x"}])


def test_a_column_that_would_hide_the_answer_is_refused(mine: Path):
    row = {"prompt": "x", "answer": "42"}
    with pytest.raises(InputError, match="give the column another name"):
        check_rewards(Running(reward=f"{mine}:right"), [row])
    check_rewards(Running(), [row])


def test_several_rewards_are_added_by_their_weights(mine: Path):
    terms = (
        RewardTerm(score="letters:7", weight=2.0),
        RewardTerm(score=f"{mine}:right", weight=0.5),
        RewardTerm(score="model", weight=0.25),
    )
    made = Rewards(Running(reward=terms))
    assert made.score([{"solution": "7", "answer": "77"}, {"solution": "7", "answer": "x"}]) == [
        2.5, 0.0,
    ]  # fmt: skip
    assert (made.needs_model, made.model_weight) == (True, 0.25)
    made.close()
    assert models_score(Running(reward=terms))
    assert not models_score(Running(reward=terms[:2]))


def job(reward: object, layout: Layout, **more: object) -> Job:
    base = named()["learn-cpu-2"]
    running = msgspec.to_builtins(base.running) | {"steps": 2, "reward": reward, **more}
    asked = msgspec.structs.replace(
        base,
        devices=layout.world,
        choice=Choice(training=layout, generation=layout),
        running=msgspec.convert(running, Running),
    )
    return Job(make_plan(asked, "given"), asked.ppo, asked.running, 0, "gloo")


@pytest.mark.parametrize(
    "layout", [Layout(tensor=2), pytest.param(Layout(data=2), marks=pytest.mark.slow)], ids=str
)
def test_a_reward_of_ones_own_trains_as_the_shipped_one_of_the_same_meaning(
    layout: Layout, mine: Path
):
    """By two slices, of which one scores, and by two replicas, which score their own answers."""
    shipped = launch(job("letters:abcdefghijklmnopqrstuvwxyz ", Layout()))
    own = launch(job(f"{mine}:letters", layout))
    assert own.digest == shipped.digest
    for one, other in zip(own.steps, shipped.steps, strict=True):
        assert one.reward == pytest.approx(other.reward, rel=1e-6)
        assert one.actor_loss == pytest.approx(other.actor_loss, abs=1e-5)
        assert one.rewards_failed == 0


def test_a_reward_that_fails_at_every_answer_ends_the_run_with_its_reason(mine: Path):
    with pytest.raises(InputError, match="failed at every answer of a step: ValueError: a score"):
        launch(job(f"{mine}:endless", Layout(tensor=2)))


def test_the_columns_that_a_reward_reads_belong_to_the_question(mine: Path, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    asked: list[object] = []
    for solution, reward in (("1", f"{mine}:right"), ("2", f"{mine}:right"), ("2", "letters:a")):
        path.write_text(json.dumps({"prompt": "x", "solution": solution}) + "\n")
        made = job(reward, Layout(data=2), prompts=str(path))
        asked.append(question_of(made)["running.prompts"])
    assert asked[0] != asked[1]
    path.write_text(json.dumps({"prompt": "x", "solution": "3"}) + "\n")
    same = job("letters:a", Layout(data=2), prompts=str(path))
    assert question_of(same)["running.prompts"] == asked[2]


TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [{"role": "system", "content": "add"}, {"role": "user", "content": "two and two"}]


@pytest.fixture
def chatting(tmp_path: Path) -> Path:
    """Return a folder with a tokenizer of words that has a chat template."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = ["<end>", "<system>", "<user>", "<assistant>", "add", "two", "and", "?"]
    inner = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="?"))
    inner.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", unk_token="?")
    made.chat_template = TEMPLATE
    made.save_pretrained(tmp_path / "words")
    return tmp_path / "words"


def test_messages_are_rendered_by_the_chat_template(chatting: Path, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    rows = [{"messages": TALK}, {"prompt": TALK, "solution": "4"}, {"prompt": "two and two"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = prompts_for(Running(prompts=str(path)), HuggingFace(str(chatting)), 16)
    talk = [1, 4, 2, 5, 6, 5, 3]
    assert found.ids == [talk, talk, [5, 6, 5]]
    assert found.rows[1]["solution"] == "4"
    with pytest.raises(InputError, match="'bytes' has no chat template"):
        prompts_for(Running(prompts=str(path)), Bytes(), 64)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "the last message is by 'nobody'"),
        ({"messages": [*TALK, {"role": "assistant", "content": "4"}]}, "is by 'assistant'"),
        ({"prompt": [{"role": "user"}]}, "expected an object with the texts 'role' and 'content'"),
        ({"text": "x"}, "no JSON object with a 'prompt'"),
        ({"prompt": "\ud800"}, "half of a surrogate pair"),
    ],
)
def test_rows_that_ask_nothing_are_refused(row: object, message: str, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message) as error:
        load_rows(str(path))
    assert "line 1" in str(error.value)


def test_an_experiment_with_several_rewards_reads_back(tmp_path: Path):
    from common.case import read_toml, to_toml

    base = named()["tiny-cpu-1"]
    terms = (RewardTerm(score="model"), RewardTerm(score="letters:ab", weight=0.5))
    asked = msgspec.structs.replace(
        base, running=msgspec.structs.replace(base.running, reward=terms)
    )
    (tmp_path / "my.toml").write_text(to_toml(asked))
    assert read_toml(tmp_path / "my.toml", Experiment) == asked
