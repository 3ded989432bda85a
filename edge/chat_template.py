"""Renders a chat into the prompt text a model was trained on, with the model's own jinja template.

Renders as transformers' `apply_chat_template` does (same jinja options, filters and globals). The template comes with
the model and is not trusted: it runs in jinja's sandbox, with the bounds of `edge.template_bounds` on work and size.
Control tokens inside a message count as control tokens, as they do there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from edge.errors import PackError, RequestError
from edge.template_bounds import BoundedEnvironment, OverBoundsError


class ChatTemplate:
    """One compiled template. Thread-safe: every rendering has bounds of its own.

    Raises: PackError if `source` is not a jinja template.
    """

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._special_tokens = dict(special_tokens or {})
        self._environment = _environment(now)
        try:
            self._literals = _literals(self._environment.parse(source))
            self._template = self._environment.from_string(source)
        except (jinja2.TemplateError, RecursionError, SyntaxError, ValueError) as error:
            raise PackError(f"the model's chat template cannot be compiled: {_first_line(error)}") from error

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt for `messages`, open for the assistant's turn.

        Raises: RequestError if there is no message, if the template refuses these ones (its own words are passed on
        only where they stand in the template, so that an error never carries a prompt) or if it goes out of bounds.
        """
        if not messages:
            raise RequestError("the chat has no messages: at least 1 is needed")
        values = {"tools": None, "documents": None, "add_generation_prompt": True, **self._special_tokens}
        try:
            with self._environment.bounds() as bounds:
                pieces = self._template.generate(messages=[dict(message) for message in messages], **values)
                return bounds.joined(pieces)
        except OverBoundsError as error:
            raise RequestError(f"the chat template went out of bounds: {error}") from error
        except jinja2.TemplateError as error:
            raise RequestError(f"the chat template refused the messages{self._own_words(error)}") from None
        except (RecursionError, MemoryError) as error:
            raise RequestError(f"the chat template went out of bounds: {type(error).__name__}") from None
        except Exception as error:
            # A template is foreign code: whatever it raises on these messages is an answer to this request.
            raise RequestError(f"the chat template failed on these messages: {type(error).__name__}") from None

    def _own_words(self, error: jinja2.TemplateError) -> str:
        message = error.message or ""
        return f": {message}" if message in self._literals else f" ({type(error).__name__})"


class _GenerationTag(Extension):
    """`{% generation %}` marks the assistant's part for training; for rendering it is transparent."""

    tags = {"generation"}  # noqa: RUF012 -- jinja's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _TemplateDict:
    """`dict(...)` of a template, without the type's other attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _TemplateNamespace(jinja2.utils.Namespace):
    """`namespace(...)` of a template, refusing the underscore names that reach into the interpreter."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # The signature of jinja's own, so that `namespace(self=...)` works.
        self, *positional = args
        attributes = dict(*positional, **kwargs)
        for name in attributes:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError("a namespace takes no name that starts with an underscore")


def _environment(now: Callable[[], datetime]) -> BoundedEnvironment:
    environment = BoundedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols])
    environment.set_filter("tojson", _tojson)
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": lambda format: now().strftime(format),
        "dict": _TemplateDict(),
        "namespace": _TemplateNamespace,
    }
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja's own would escape HTML characters."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _literals(tree: nodes.Template) -> frozenset[str]:
    return frozenset(node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
