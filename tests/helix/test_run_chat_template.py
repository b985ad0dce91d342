"""Chat templates: every text is what transformers renders, byte for byte."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.errors import InputError
from helix.run.chat_template import PLAIN, ChatTemplate, chat_template_of
from helix.run.refusals import BadRequest
from helix.run.requests_schema import Chat, ChatMessage, read

CHATML = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and message.tool_calls %}
        {{- '<|im_start|>assistant' }}
        {%- for call in message.tool_calls %}
            {{- '\\n<tool_call>' + call.function.name + ' ' + (call.function.arguments | tojson) }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
ALTERNATING = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant') }}
{% endif %}
{% if message['role'] == 'user' %}[INST] {{ message['content'] | trim }} [/INST]
{%- else %}{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}{% endif %}
{% endfor %}"""
NAMESPACED = """{%- set ns = namespace(n=0) -%}
{%- for m in messages -%}
{%- if loop.index0 > 2 -%}{%- break -%}{%- endif -%}
{%- set ns.n = ns.n + 1 -%}{{ ns.n }}<{{ m.role }}>{{ m.content }}{{ '\\n' }}
{%- endfor -%}{{ "(" ~ (flavour | default("none")) ~ ")" }}"""

TALKS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hi <there> & \"you\" é \U0001f600"}],
    [{"role": "user", "content": " a "}, {"role": "assistant", "content": "b"},
     {"role": "user", "content": "c\nd"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ""}],
]  # fmt: skip
TOOLS = [
    {"type": "function", "function": {"name": "f", "description": "<é>", "parameters": {"a": [1]}}}
]


def messages(talk: list[dict[str, Any]]) -> list[ChatMessage]:
    return msgspec.convert(talk, list[ChatMessage])


def rendered(template: str, talk: Any, tools: Any = None, **more: Any) -> str:
    render = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    texts, _ = render(
        [talk], tools=tools, chat_template=template, add_generation_prompt=True, **more
    )
    return texts[0]


@pytest.mark.parametrize("talk", TALKS, ids=range(len(TALKS)))
@pytest.mark.parametrize("template", [CHATML, NAMESPACED, PLAIN], ids=["chatml", "ns", "plain"])
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
def test_a_template_renders_as_in_transformers(template, talk, tools):
    ours = ChatTemplate({"default": template}, {}, "test").text(messages(talk), tools)
    assert ours == rendered(template, talk, tools)


def test_special_tokens_and_marks_of_training_are_as_in_transformers():
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    ours = ChatTemplate({"default": ALTERNATING}, names, "test").text(messages(TALKS[1]))
    assert ours == rendered(ALTERNATING, TALKS[1], **names)
    assert ours.startswith("<s>")
    assert "b</s>" in ours


def test_a_templates_own_names_can_be_set_but_not_ours():
    template = ChatTemplate({"default": NAMESPACED}, {}, "test")
    text = template.text(messages(TALKS[0]), None, {"flavour": "sour"})
    assert text == rendered(NAMESPACED, TALKS[0], flavour="sour")
    with pytest.raises(BadRequest, match="may not set messages"):
        template.text(messages(TALKS[0]), None, {"messages": []})


def test_arguments_of_calls_are_objects_and_parts_are_lines():
    call = {"type": "function", "function": {"name": "f", "arguments": '{"a": "é"}'}}
    talk = [{"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]},
            {"role": "assistant", "content": None, "tool_calls": [call]}]  # fmt: skip
    as_objects = [{"role": "user", "content": "a\nb"},
                  {"role": "assistant", "content": None, "tool_calls": [
                      {**call, "function": {"name": "f", "arguments": {"a": "é"}}}]}]  # fmt: skip
    ours = ChatTemplate({"default": CHATML}, {}, "test").text(messages(talk))
    assert ours == rendered(CHATML, as_objects)
    assert '<tool_call>f {"a": "é"}' in ours


def test_what_a_template_does_not_take_is_the_clients_mistake():
    template = ChatTemplate({"default": ALTERNATING}, {}, "test")
    with pytest.raises(BadRequest, match="roles must alternate user/assistant"):
        template.text(messages(TALKS[2]))
    silent = messages([{"role": "user"}])
    with pytest.raises(BadRequest, match="does not take these messages"):
        ChatTemplate({"default": CHATML}, {}, "test").text(silent)


def test_a_template_cannot_reach_out_of_its_sandbox():
    escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(BadRequest, match="unsafe"):
        ChatTemplate({"default": escape}, {}, "test").text(messages(TALKS[0]))


def test_templates_are_found_where_checkpoints_have_them(tmp_path: Path):
    assert chat_template_of("").origin == "helix's plain default"
    assert chat_template_of("").text(messages(TALKS[1])) == (
        "user:  a \nassistant: b\nuser: c\nd\nassistant:"
    )
    settings: dict[str, Any] = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(settings))
    assert chat_template_of(str(tmp_path)).origin == "helix's plain default"
    config.write_text(json.dumps({**settings, "chat_template": ALTERNATING}))
    found = chat_template_of(str(tmp_path))
    assert found.origin == str(tmp_path)
    assert found.text(messages(TALKS[0])).startswith("<s>[INST] Hi")
    several = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    config.write_text(json.dumps({**settings, "chat_template": several}))
    assert chat_template_of(str(tmp_path)).text(messages(TALKS[0])) == "plain"
    assert chat_template_of(str(tmp_path)).text(messages(TALKS[0]), TOOLS) == "tools"
    (tmp_path / "chat_template.jinja").write_text("of the file")
    assert chat_template_of(str(tmp_path)).text(messages(TALKS[0])) == "of the file"
    (tmp_path / "chat_template.jinja").write_text("{% broken")
    with pytest.raises(InputError, match="not a chat template"):
        chat_template_of(str(tmp_path))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": []}, "length >= 1"),
        ({"messages": [{"content": "a"}]}, "missing required field `role`"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content: Expected"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "url": "x"}]}]},
         "messages[0].content[0]"),
        ({"messages": [{"role": "user", "audio": 5}]}, "'messages[0].audio' is not supported"),
        ({"messages": TALKS[0], "chat_template": "{{ x }}"}, "'chat_template' is not supported"),
        ({"messages": TALKS[0], "tool_choice": "required"}, "tool_choice: Invalid enum value"),
        ({"messages": TALKS[0], "top_logprobs": 3}, "top_logprobs goes with logprobs"),
        ({"messages": TALKS[0], "max_tokens": 0}, "max_tokens is 0"),
    ],
)  # fmt: skip
def test_conversations_that_are_none_are_refused(body, said):
    with pytest.raises(BadRequest) as refused:
        read(json.dumps(body).encode(), Chat)
    assert said in str(refused.value)
