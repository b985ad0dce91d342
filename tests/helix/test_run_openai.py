"""The OpenAI interface of a running service, with transformers on the same checkpoint as oracle."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import InputError
from helix.inputs.serving import ServeSettings
from tests.helix.local_checkpoint import EOS, continued, log_probabilities, save_checkpoint
from tests.helix.local_fleet import experiment
from tests.helix.local_service import LocalService, running

pytest.importorskip("transformers")

TEXTS = ["Hello", "A second prompt, longer", "é"]
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <é>"}]
NEW = 12
LISTS = ("tokens", "token_logprobs", "text_offset")
PLACEMENT = ((0, 3), (3, 6), (0, 3), (3, 6))
Checkpoint = tuple[str, Any, Any]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("checkpoint")
    return (str(folder), *save_checkpoint(folder))


@pytest.fixture(scope="module")
def service(checkpoint: Checkpoint) -> Iterator[LocalService]:
    asked = experiment(machines=4, restart=True, weights=checkpoint[0])
    with running(asked, PLACEMENT) as one:
        yield one
        assert one.settled()
        assert not {"http", "head", "watch"} & one.health()["faults"].keys()


def posted(service: LocalService, path: str, body: dict[str, Any], **headers: str) -> Any:
    said = service.ask(path, body, **headers)
    assert said.status == 200, said
    return said.json


def complete(service: LocalService, **body: Any) -> Any:
    settings = {"prompt": TEXTS[0], "max_tokens": NEW, "temperature": 0, "ignore_eos": True}
    return posted(service, "/v1/completions", {**settings, **body})


def chat(service: LocalService, **body: Any) -> Any:
    settings = {"messages": TALK, "max_tokens": NEW, "temperature": 0, "ignore_eos": True}
    return posted(service, "/v1/chat/completions", {**settings, **body})


def events(service: LocalService, path: str, **body: Any) -> list[Any]:
    said = service.ask(path, {"stream": True, "max_tokens": NEW, "ignore_eos": True, **body})
    assert said.status == 200, said
    lines = said.body.decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def greedy(checkpoint: Checkpoint, text: str, new: int = NEW, **how: Any) -> list[int]:
    _, model, tokenizer = checkpoint
    return continued(model, tokenizer.encode(text, add_special_tokens=False), new, **how)


def test_every_prompt_of_a_list_has_the_answers_of_transformers(service, checkpoint):
    decode = checkpoint[2].decode
    expected = [decode(greedy(checkpoint, text)) for text in TEXTS]
    ids = [checkpoint[2].encode(text, add_special_tokens=False) for text in TEXTS]
    for prompts in (TEXTS, ids):
        found = complete(service, prompt=prompts, n=2)
        assert [c["index"] for c in found["choices"]] == list(range(6))
        assert [c["text"] for c in found["choices"]] == [t for t in expected for _ in range(2)]
        counted = sum(map(len, ids))
        assert found["usage"]["prompt_tokens"] == counted
        assert found["usage"]["completion_tokens"] == 6 * NEW


@pytest.mark.parametrize("most", [0, 1, 5])
def test_an_echoed_prompt_has_the_log_probabilities_of_transformers(service, checkpoint, most):
    _, model, tokenizer = checkpoint
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    found = complete(service, prompt=prompts, echo=True, logprobs=2, max_tokens=most)
    for prompt, choice in zip(prompts, found["choices"], strict=True):
        whole = prompt + continued(model, prompt, most) if most else prompt
        logs, told = log_probabilities(model, whole), choice["logprobs"]
        expected = [logs[i, token].item() for i, token in enumerate(whole[1:])]
        assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
        assert told["token_logprobs"][1:] == pytest.approx(expected, abs=1e-3)
        for top, row in zip(told["top_logprobs"][1:], logs, strict=False):
            assert max(top.values()) == pytest.approx(row.max().item(), abs=1e-3)
        assert told["tokens"] == [tokenizer.decode([token]) for token in whole]
        assert choice["text"] == tokenizer.decode(prompt) + tokenizer.decode(whole[len(prompt) :])
        assert told["text_offset"][0] == 0
        assert len(told["text_offset"]) == len(whole)
    assert found["usage"]["completion_tokens"] == 3 * most


def test_a_repetition_penalty_is_that_of_transformers(service, checkpoint):
    expected = [greedy(checkpoint, text, 30, repetition_penalty=1.4) for text in TEXTS]
    assert expected != [greedy(checkpoint, text, 30) for text in TEXTS]
    found = complete(service, prompt=TEXTS, repetition_penalty=1.4, max_tokens=30)
    assert [c["text"] for c in found["choices"]] == [checkpoint[2].decode(e) for e in expected]


def test_fields_that_touch_one_another_go_together(service):
    found = complete(
        service, min_tokens=3, presence_penalty=1.0, logit_bias={"65": 1.0}, top_k=5, min_p=0.01,
        top_p=0.9, temperature=1.0, seed=-5, n=2, best_of=3, logprobs=5, echo=True, stop=["zz"],
    )  # fmt: skip
    assert [len(c["logprobs"]["tokens"]) for c in found["choices"]] == [5 + NEW] * 2


def test_bias_bans_and_stop_tokens_do_what_they_say(service, checkpoint):
    tokens = greedy(checkpoint, TEXTS[0])
    stop = next(t for i, t in enumerate(tokens) if i >= 2 and t not in tokens[:i])
    before = tokens.index(stop)
    found = complete(service, stop_token_ids=[stop], ignore_eos=False)["choices"][0]
    assert (found["text"], found["finish_reason"]) == (
        checkpoint[2].decode(tokens[:before]), "stop",
    )  # fmt: skip
    found = complete(service, stop_token_ids=[stop], min_tokens=before + 2, logprobs=0)
    drawn = found["usage"]["completion_tokens"]
    assert drawn >= before + 2
    only = complete(service, logit_bias={"65": 100})["choices"][0]["text"]
    never = complete(service, logit_bias={str(stop): -100}, stop_token_ids=[stop])["choices"][0]
    assert only == checkpoint[2].decode([65]) * NEW
    assert never["finish_reason"] == "length"
    ended = complete(service, logit_bias={str(EOS): 100}, ignore_eos=False)["choices"][0]
    assert (ended["text"], ended["finish_reason"]) == ("", "stop")


def test_the_best_of_several_is_the_likeliest_of_them(service):
    asked = {"temperature": 1.5, "seed": 7, "logprobs": 0}
    four = complete(service, n=4, **asked)["choices"]
    texts = [choice["text"] for choice in four]
    assert len(set(texts)) == 4

    def mean(choice: Any) -> float:
        logs = choice["logprobs"]["token_logprobs"]
        return sum(logs) / len(logs)

    ranked = sorted(four, key=mean, reverse=True)
    best = complete(service, n=2, best_of=4, **asked)
    assert [c["text"] for c in best["choices"]] == [c["text"] for c in ranked[:2]]
    assert [c["index"] for c in best["choices"]] == [0, 1]
    assert best["usage"]["completion_tokens"] == 4 * NEW
    assert complete(service, **asked)["choices"][0]["text"] == texts[0]


def test_a_chat_is_the_templates_text_and_goes_on_as_transformers(service, checkpoint):
    _, model, tokenizer = checkpoint
    prompt = tokenizer.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False)
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    assert posted(service, "/tokenize", {"messages": TALK})["tokens"] == ids
    expected = tokenizer.decode(continued(model, ids, NEW))
    found = chat(service, n=2, logprobs=True, top_logprobs=3)
    assert found["object"] == "chat.completion"
    assert [c["message"]["content"] for c in found["choices"]] == [expected] * 2
    assert {c["message"]["role"] for c in found["choices"]} == {"assistant"}
    assert found["usage"]["prompt_tokens"] == len(ids)
    logs = log_probabilities(model, ids + continued(model, ids, NEW))
    told = found["choices"][0]["logprobs"]["content"]
    assert len(told) == NEW
    for place, one in enumerate(told, len(ids) - 1):
        best = logs[place].topk(3)
        assert one["logprob"] == pytest.approx(best.values[0].item(), abs=1e-3)
        assert [t["logprob"] for t in one["top_logprobs"]] == pytest.approx(
            best.values.tolist(), abs=1e-3
        )
        assert one["bytes"] is None or bytes(one["bytes"]).decode() == one["token"]


def test_tools_are_for_the_template(service, checkpoint):
    tools = [{"type": "function", "function": {"name": "f"}}]
    tokenizer = checkpoint[2]
    for choice, given in (("auto", tools), ("none", None)):
        text = tokenizer.apply_chat_template(
            TALK, tools=given, add_generation_prompt=True, tokenize=False
        )
        found = chat(service, tools=tools, tool_choice=choice)
        assert found["usage"]["prompt_tokens"] == len(
            tokenizer.encode(text, add_special_tokens=False)
        )


def test_a_chat_without_a_limit_has_the_rest_of_the_context(service):
    found = chat(service, max_tokens=None)
    assert found["usage"]["total_tokens"] == 512
    assert found["choices"][0]["finish_reason"] == "length"


def test_streams_of_several_answers_are_the_whole_ones(service):
    asked = {
        "prompt": TEXTS[:2],
        "n": 2,
        "temperature": 1.2,
        "seed": 3,
        "logprobs": 1,
        "echo": True,
    }
    whole = complete(service, **asked)["choices"]
    found = events(
        service, "/v1/completions", **asked,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    )  # fmt: skip
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 4 * NEW
    used = [event["usage"]["completion_tokens"] for event in found]
    assert used == sorted(used)
    for one in whole:
        of_one = [c for e in found for c in e["choices"] if c["index"] == one["index"]]
        assert "".join(c["text"] for c in of_one) == one["text"]
        told = {name: [v for c in of_one for v in c["logprobs"][name]] for name in LISTS}
        assert told["tokens"] == one["logprobs"]["tokens"]
        assert told["text_offset"] == one["logprobs"]["text_offset"]
        assert told["token_logprobs"][0] is None
        logs = one["logprobs"]["token_logprobs"][1:]
        assert told["token_logprobs"][1:] == pytest.approx(logs, abs=1e-4)
        assert [c["finish_reason"] for c in of_one if c["finish_reason"]] == ["length"]


def test_a_streamed_chat_begins_with_the_role_and_ends_with_a_reason(service):
    whole = chat(service, n=2, temperature=1.0, seed=5, logprobs=True)["choices"]
    found = events(
        service, "/v1/chat/completions", messages=TALK, n=2, temperature=1.0, seed=5, logprobs=True
    )
    assert {event["object"] for event in found} == {"chat.completion.chunk"}
    assert len({event["id"] for event in found}) == 1
    for one in whole:
        of_one = [c for e in found for c in e["choices"] if c["index"] == one["index"]]
        assert of_one[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(c["delta"].get("content", "") for c in of_one) == one["message"]["content"]
        told = [t for c in of_one if c["logprobs"] for t in c["logprobs"]["content"]]
        expected = one["logprobs"]["content"]
        assert [t["token"] for t in told] == [t["token"] for t in expected]
        logs = [t["logprob"] for t in expected]
        assert [t["logprob"] for t in told] == pytest.approx(logs, abs=1e-4)
        assert (of_one[-1]["delta"], of_one[-1]["finish_reason"]) == ({}, "length")


def test_answers_with_a_history_survive_a_lost_machine(service):
    asked = {
        "n": 4, "max_tokens": 150, "temperature": 0.9, "seed": 11, "frequency_penalty": 0.7,
        "presence_penalty": -0.4, "repetition_penalty": 1.2, "echo": True, "logprobs": 0,
    }  # fmt: skip
    expected = [c["text"] for c in complete(service, **asked)["choices"]]
    head, loop = service.serving.head, service.loop
    before = head.books.again
    came = head.books.tokens

    def kill(*_: Any) -> None:
        if head.books.tokens > came + 100:
            head.on_token.remove(kill)
            loop.call_soon(service.fleet.kill, 1)
            loop.call_soon(service.fleet.kill, 2)

    service.call(lambda: head.on_token.append(kill))
    assert [c["text"] for c in complete(service, **asked)["choices"]] == expected
    assert head.books.again > before
    service.wait_for(lambda: service.health()["status"] == "ok")


def test_tokens_go_there_and_back(service, checkpoint):
    tokenizer = checkpoint[2]
    for text in (*TEXTS, "", "<s>[x]</s>"):
        said = posted(service, "/tokenize", {"prompt": text, "return_token_strs": True})
        assert said["tokens"] == tokenizer.encode(text, add_special_tokens=False)
        assert (said["count"], said["max_model_len"]) == (len(said["tokens"]), 512)
        assert said["token_strs"] == [tokenizer.decode([i]) for i in said["tokens"]]
    ids = tokenizer.encode(TEXTS[1], add_special_tokens=False)
    assert posted(service, "/detokenize", {"tokens": ids}) == {"prompt": TEXTS[1]}
    assert service.ask("/detokenize", {"tokens": [259]}).status == 400
    assert service.ask("/tokenize", {}).status == 400
    assert service.ask("/tokenize", {"prompt": "a", "messages": TALK}).status == 400


def test_the_model_and_the_version_are_told(service, checkpoint):
    one = service.ask("/v1/models/tiny").json
    assert service.ask("/v1/models").json["data"] == [one]
    assert (one["id"], one["max_model_len"]) == ("tiny", 512)
    assert one["chat_template"] == checkpoint[0]
    assert service.ask("/v1/models/org/other").status == 404
    document = service.ask("/openapi.json").json
    assert document["info"]["version"] == service.ask("/version").json["version"]
    fields = document["components"]["schemas"]["Chat"]["properties"]
    assert fields["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 2}
    for path, methods in document["paths"].items():  # every path is there
        body = {} if "post" in methods else None
        assert service.ask(path.replace("{id}", "tiny"), body).status == (
            200 if body is None else 400
        )


def test_only_those_who_know_the_key_are_served(monkeypatch):
    monkeypatch.setenv("TEST_KEY", "s3cret é")
    with running(experiment(machines=1, api_key="env:TEST_KEY"), ((0, 6),)) as service:
        body = {"prompt": "Hi", "max_tokens": 1}
        right = {"Authorization": "Bearer s3cret é".encode().decode("latin-1")}
        for headers in ({}, {"Authorization": "Bearer s3cret"}, {"Authorization": "s3cret"}):
            for path, sent in (("/v1/completions", body), ("/v1/models", None), ("/no", None)):
                said = service.ask(path, sent, **headers)
                assert said.status == 401
                assert said.json["error"]["type"] == "authentication_error"
        assert service.ask("/v1/completions", body, **right).status == 200
        assert service.ask("/v1/models/tiny", **right).json["chat_template"].endswith("default")
        for path in ("/health", "/metrics", "/version"):
            assert service.ask(path).status == 200


def test_a_key_is_named_not_written_down(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    (tmp_path / "key").write_text(" abc\n")
    (tmp_path / "empty").write_text("\n")
    assert ServeSettings().key() == ""
    assert ServeSettings(api_key=f"file:{tmp_path / 'key'}").key() == "abc"
    for given, said in (
        ("s3cret", "expected env:NAME or file:PATH"),
        ("env:TEST_KEY", "TEST_KEY is not set"),
        (f"file:{tmp_path / 'empty'}", "is empty"),
        (f"file:{tmp_path / 'no'}", "No such file"),
    ):
        with pytest.raises(InputError, match=said) as refused:
            ServeSettings(api_key=given).key()
        assert "s3cret" not in str(refused.value)


def test_the_openai_client_is_served(service, checkpoint):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{service.url}/v1", api_key="any", max_retries=0)
    expected = chat(service)["choices"][0]["message"]["content"]
    asked = {"model": "tiny", "max_tokens": NEW, "temperature": 0}
    extra = {"extra_body": {"ignore_eos": True, "top_k": -1}}
    talked = client.chat.completions.create(messages=TALK, **asked, **extra)
    assert talked.choices[0].message.content == expected
    with client.chat.completions.create(
        messages=TALK, stream=True, stream_options={"include_usage": True}, **asked, **extra
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected
    assert chunks[-1].usage.completion_tokens == NEW
    texts = client.completions.create(prompt=TEXTS, logprobs=2, echo=True, **asked, **extra)
    assert [c.text for c in texts.choices] == [
        c["text"] for c in complete(service, prompt=TEXTS, echo=True)["choices"]
    ]
    assert client.models.retrieve("tiny").id == client.models.list().data[0].id == "tiny"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(messages=TALK, **{**asked, "temperature": 3})
    with pytest.raises(openai.BadRequestError, match="response_format 'json_object'"):
        client.chat.completions.create(
            messages=TALK, response_format={"type": "json_object"}, **asked
        )
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.chat.completions.create(messages=TALK, model="gpt")
