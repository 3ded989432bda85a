"""A jinja sandbox that also bounds how much a template may do: loop turns and calls, and the size of what it builds.

jinja's sandbox keeps a template from reaching outside; alone, it does not keep one from running for ever or from
filling the memory ("a" * 10**9, a text doubled forty times, a macro that calls itself twice).
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

# A chat of 10,000 messages takes a common template about 300,000 steps; a million take about a second.
MAX_STEPS = 1_000_000
# Several times the most characters that a request may bring.
MAX_CHARS = 16 * 2**20
MAX_ITEMS = 1_000_000
# Widths, counts and exponents of formatting; no template comes near it.
MAX_NUMBER = 100_000
# A width in a format text, "%9999999d" or "{:>9999999}".
HUGE_WIDTH = re.compile(r"\d{6}")

# Filters that turn a whole value into text, and those whose numbers are widths or counts.
STRINGIFIERS = frozenset(
    {"tojson", "string", "join", "pprint", "format", "xmlattr", "urlencode", "escape", "forceescape"}
)
SIZED_BY_NUMBERS = frozenset({"center", "indent", "wordwrap", "truncate", "batch", "slice", "format", "tojson"})


class OverBoundsError(Exception):
    """A template did more than it may."""


class Bounds:
    """What one rendering has used so far."""

    def __init__(self) -> None:
        self._steps = 0

    def step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise OverBoundsError(f"more than {MAX_STEPS:,} steps")

    def joined(self, pieces: Iterable[str]) -> str:
        """The text of `pieces`, given up as soon as it is too long."""
        kept, size = [], 0
        for piece in pieces:
            size += len(piece)
            _check_chars(size)
            kept.append(piece)
        return "".join(kept)


_current: ContextVar[Bounds] = ContextVar("bounds")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Every loop turn, call, filter and output of a template passes here. Render inside `with bounds()`."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, finalize=_weighed, **kwargs)
        del self.globals["lipsum"]  # random text of any length
        for name, function in list(self.filters.items()):
            self.set_filter(name, function)

    def set_filter(self, name: str, function: Callable[..., Any]) -> None:
        self.filters[name] = _bounded(name, function)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """As jinja has it, without the ways to bytes: they multiply and pad as texts do, and nothing weighs them."""
        return attr not in ("encode", "to_bytes") and super().is_safe_attribute(obj, attr, value)

    @contextmanager
    def bounds(self) -> Iterator[Bounds]:
        token = _current.set(Bounds())
        try:
            yield _current.get()
        finally:
            _current.reset(token)

    def turn(self) -> None:
        """Called at the start of each loop turn; the call itself is the step."""

    def concat_texts(self, *parts: Any) -> str:
        """What `~` of a template does."""
        texts = [str(_weighed(part)) for part in parts]
        _check_chars(sum(map(len, texts)))
        return "".join(texts)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Compile with a call at the start of each loop turn, and with `~` as a call."""
        for loop in source.find_all(nodes.For):
            loop.body.insert(0, nodes.ExprStmt(_call("turn", []), lineno=loop.lineno))
        _replace_concats(source)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _step()
        if operator == "*":
            _check_product(left, right)
        elif operator == "**":
            _check_numbers((left, right))
        elif operator == "%" and isinstance(left, str):
            _check_format(left, right if isinstance(right, tuple) else (right,))
        elif operator == "+":
            _check_sum(left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 -- jinja's signature: mangled names leave every keyword to the callee
        _step()
        # jinja wraps str.format, which hides the text that it belongs to.
        subject = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(subject, str):
            _check_method(__obj.__name__, subject, args, kwargs)
        return _checked(super().call(__context, __obj, *args, **kwargs))


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)  # keeps the mark by which jinja passes an environment or context first
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _step()
        subject, rest = args[first], (*args[first + 1 :], *kwargs.values())
        if name in STRINGIFIERS:
            _weighed((subject, rest))
        if name in SIZED_BY_NUMBERS:
            _check_numbers(rest)
        if isinstance(subject, str) and name in ("replace", "format"):
            _check_method(name, subject, rest, {})
        return _checked(function(*args, **kwargs))

    return bounded


def _check_method(name: str, subject: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what would build too much in one go: wide padding, a replacement or a join that multiplies."""
    _check_numbers((*args, *kwargs.values()))
    if name in ("format", "format_map"):
        _check_format(subject, (*args, *kwargs.values()))
    elif name == "replace" and len(args) >= 2:
        old, new = str(args[0]), str(args[1])
        found = subject.count(old) if old else len(subject) + 1
        _check_chars(len(subject) + found * len(new))
    elif name == "join" and args and isinstance(args[0], list | tuple | dict | str):
        _check_chars(sum(len(item) + len(subject) for item in args[0] if isinstance(item, str)))
    elif name == "expandtabs":
        _check_chars(len(subject) + subject.count("\t") * int(args[0] if args else 8))


def _check_numbers(values: Iterable[Any]) -> None:
    if any(isinstance(value, int | float) and abs(value) > MAX_NUMBER for value in values):
        raise OverBoundsError(f"a width, count or exponent above {MAX_NUMBER:,}")


def _check_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str) and isinstance(times, int):
            _check_chars(len(value) * times)
        elif isinstance(value, list | tuple) and isinstance(times, int):
            _check_items(len(value) * times)
        elif isinstance(value, int) and value.bit_length() > 1024:
            raise OverBoundsError("a whole number of more than 1,024 bits")


def _check_sum(left: Any, right: Any) -> None:
    if isinstance(left, str) and isinstance(right, str):
        _check_chars(len(left) + len(right))
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        _check_items(len(left) + len(right))


def _check_format(text: str, values: tuple[Any, ...]) -> None:
    if HUGE_WIDTH.search(text):
        raise OverBoundsError("a format text with a number of six digits or more")
    if "*" in text or "{" in text:  # the width may be one of the values
        _check_numbers(values)
    _weighed(values)


def _checked(result: Any) -> Any:
    if isinstance(result, str):
        _check_chars(len(result))
    elif isinstance(result, list | tuple | dict):
        _check_items(len(result))
    return result


def _check_chars(size: int) -> None:
    if size > MAX_CHARS:
        raise OverBoundsError(f"a text of more than {MAX_CHARS:,} characters")


def _check_items(size: int) -> None:
    if size > MAX_ITEMS:
        raise OverBoundsError(f"a list of more than {MAX_ITEMS:,} items")


def _weighed(value: Any) -> Any:
    """`value`, once it is known to be small enough to be written out: a list may hold one list many times over."""
    if not isinstance(value, list | tuple | dict):
        return value
    items = chars = 0
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        items += 1
        _check_items(items)
        if isinstance(item, str):
            chars += len(item)
            _check_chars(chars)
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
    return value


def _step() -> None:
    _current.get().step()


def _call(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    # By way of the environment, whose attributes a template cannot name: a global could be set to something else.
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


def _replace_concats(node: nodes.Node) -> None:
    for field, value in node.iter_fields():
        if isinstance(value, list):
            value[:] = [_without_concat(item) for item in value]
        else:
            setattr(node, field, _without_concat(value))


def _without_concat(value: Any) -> Any:
    if not isinstance(value, nodes.Node):
        return value
    _replace_concats(value)
    if isinstance(value, nodes.Concat):
        return _call("concat_texts", list(value.nodes)).set_lineno(value.lineno)
    return value
