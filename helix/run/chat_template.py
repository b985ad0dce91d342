"""A conversation as the text that a checkpoint was trained on, by its own Jinja template.

The template is where Hugging Face puts it (`chat_template.jinja`, or `tokenizer_config.json`), and
is rendered as transformers does: the same sandbox, block trimming, filters and names.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from common.errors import InputError
from helix.run.refusals import BadRequest
from helix.run.requests_schema import ChatMessage

PLAIN = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""For a checkpoint that brings none: each message on a line after its role."""

DEFAULT, TOOLS = "default", "tool_use"  # of a checkpoint with several templates
OURS = ("messages", "tools", "documents", "add_generation_prompt")
MOST_SAID = 300  # characters of a template's own complaint


class _Generation(Extension):
    """`{% generation %}` marks what the model said, for training; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - as the library has it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """The templates of one checkpoint, compiled."""

    def __init__(self, sources: Mapping[str, str], names: Mapping[str, str], origin: str) -> None:
        """Compile; `names` are the special tokens, `origin` says where the templates are from."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise, "strftime_now": _now}
        self.names, self.origin = dict(names), origin
        try:
            self._templates = {
                name: environment.from_string(text) for name, text in sources.items()
            }
        except TemplateError as error:
            raise InputError(f"{origin}: not a chat template: {error}") from None

    def text(
        self, messages: Sequence[ChatMessage], tools: list[dict[str, Any]] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """Return the conversation up to where the model goes on; `more` are a template's own names.

        Raises:
            BadRequest: the template does not take this conversation.
        """
        taken = [name for name in more or () if name in OURS]
        if taken:
            raise BadRequest(f"chat_template_kwargs may not set {taken[0]}")
        template = self._templates[TOOLS if tools and TOOLS in self._templates else DEFAULT]
        values = {
            **self.names, **(more or {}), "messages": [_plain(one) for one in messages],
            "tools": tools, "documents": None, "add_generation_prompt": True,
        }  # fmt: skip
        try:
            return template.render(values)
        except Exception as error:  # whatever a template does with what a client sent
            why = " ".join(str(error).split())[:MOST_SAID] or type(error).__name__
            raise BadRequest(
                f"the chat template does not take these messages: {why}", param="messages"
            ) from None


def chat_template_of(folder: str) -> ChatTemplate:
    """Return a checkpoint's templates, or the plain one if there is none (`origin` says which)."""
    settings = _settings(Path(folder)) if folder else {}
    names = {
        name: token if isinstance(token, str) else str(token.get("content", ""))
        for name, token in settings.items()
        if name.endswith("_token") and isinstance(token, str | dict)
    }
    sources = _sources(Path(folder), settings) if folder else {}
    if DEFAULT in sources:
        return ChatTemplate(sources, names, folder)
    return ChatTemplate({**sources, DEFAULT: PLAIN}, names, "helix's plain default")


def _settings(folder: Path) -> dict[str, Any]:
    found = dict[str, Any]()
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if path.is_file():
            try:
                found = {**json.loads(path.read_text()), **found}
            except (OSError, ValueError, TypeError) as error:
                raise InputError(f"{path}: {error}") from None
    return found


def _sources(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Return templates by name; files go before what tokenizer_config.json has."""
    given = settings.get("chat_template") or {}
    if isinstance(given, str):
        given = {DEFAULT: given}
    elif isinstance(given, list):
        given = {one["name"]: one["template"] for one in given}
    found = dict[str, str](given)
    single = folder / "chat_template.jinja"
    if single.is_file():
        found[DEFAULT] = single.read_text()
    for path in sorted(folder.glob("additional_chat_templates/*.jinja")):
        found[path.stem] = path.read_text()
    return found


def _plain(message: ChatMessage) -> dict[str, Any]:
    """Return a message as templates expect it: text in one piece, arguments of calls as objects."""
    found: dict[str, Any] = msgspec.to_builtins(message)
    content = found.get("content")
    if isinstance(content, list):
        found["content"] = "\n".join(part["text"] for part in content)
    if found.get("reasoning_content") is not None:
        found["thinking"] = found["reasoning_content"]
    for call in found.get("tool_calls", ()):
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            function["arguments"] = _object(function["arguments"])
    return found


def _object(arguments: str) -> Any:
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return arguments


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None,
    separators: tuple[str, str] | None = None, sort_keys: bool = False,
) -> str:  # fmt: skip
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(why: str) -> None:
    raise TemplateError(why)


def _now(form: str) -> str:
    return datetime.now().strftime(form)
