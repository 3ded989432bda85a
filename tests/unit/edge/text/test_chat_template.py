"""What a template may not do. That it renders like transformers stands in tests/conformance."""

import time
from datetime import UTC, datetime

import pytest

from edge.chat_template import ChatTemplate
from edge.errors import PackError, RequestError

HI = [{"role": "user", "content": "canary"}]

ESCAPES = {
    "class": "{{ ''.__class__.__mro__ }}",
    "globals": "{{ cycler.__init__.__globals__ }}",
    "attribute filter": "{{ (''|attr('__class__')).x }}",
    "format string": "{{ '{0.__class__.__init__.x}'.format(1) }}",
    "format_map": "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
    "function code": "{{ raise_exception.__code__.co_consts }}",
    "change of the messages": "{{ messages.append(1) }}",
    "namespace": "{% set ns = namespace(__class__=1) %}",
    "namespace later": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
}

DOUBLING = (
    "{{% set ns = namespace(s={start}) %}}"
    "{{% for i in range(60) %}}{{% set ns.s = {step} %}}{{% endfor %}}"
    "{{{{ {end} }}}}"
)
BLOW_UPS = {
    "power of text": "{{ 'a' * 10**9 }}",
    "power of list": "{{ [1] * 99999999 }}",
    "power of numbers": "{{ 9 ** 999999999 }}",
    "product of numbers": "{{ (2 ** 60000) * (2 ** 60000) }}",
    "doubling by ~": DOUBLING.format(start="'aaaa'", step="ns.s ~ ns.s", end="ns.s"),
    "doubling by +": DOUBLING.format(start="'aaaa'", step="ns.s + ns.s", end="ns.s"),
    "doubling by format": DOUBLING.format(start="'aaaa'", step="'%s%s' % (ns.s, ns.s)", end="ns.s"),
    "doubling by str.format": DOUBLING.format(start="'aaaa'", step="'{0}{0}'.format(ns.s)", end="ns.s"),
    "doubling by join": DOUBLING.format(start="'aaaa'", step="[ns.s, ns.s]|join", end="ns.s"),
    "doubling by replace": DOUBLING.format(start="'aaaa'", step="ns.s|replace('a', 'aa')", end="ns.s"),
    "doubling list": DOUBLING.format(start="[1]", step="ns.s + ns.s", end="ns.s|length"),
    "nested list, written": DOUBLING.format(start="[1]", step="[ns.s, ns.s]", end="ns.s"),
    "nested list, joined": DOUBLING.format(start="[1]", step="[ns.s, ns.s]", end="ns.s ~ ''"),
    "nested list, as JSON": DOUBLING.format(start="[1]", step="[ns.s, ns.s]", end="ns.s|tojson"),
    "nested dict, as JSON": DOUBLING.format(start="{'a': 1}", step="{'a': ns.s, 'b': ns.s}", end="ns.s|tojson"),
    "width of %": "{{ '%999999999d' % 1 }}",
    "width of % by value": "{{ '%*d' % (999999999, 1) }}",
    "width of format": "{{ '{:999999999}'.format(1) }}",
    "width of format by value": "{{ '{:{}}'.format(1, 999999999) }}",
    "center": "{{ 'a'|center(999999999) }}",
    "ljust": "{{ 'a'.ljust(999999999) }}",
    "indent": "{{ 'a\nb'|indent(999999999) }}",
    "expandtabs": "{{ ('\t' * 99999).expandtabs(99999) }}",
    "join method": "{{ ('a' * 9999999).join(['a'] * 999) }}",
    "replace method": "{{ ('a' * 9999).replace('a', 'a' * 9999) }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "output": "{% for i in range(100000) %}" + "a" * 1000 + "{% endfor %}",
}
LOOPS = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
SLOW = {
    "empty loops": LOOPS,
    "branching recursion": "{% macro f(n) %}{{ f(n + 1) ~ f(n + 1) if n < 60 }}{% endmacro %}{{ f(1) }}",
    "a name taken over": "{% set turn = 1 %}" + LOOPS,
}


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES)
def test_a_template_cannot_leave_the_sandbox(source: str) -> None:
    with pytest.raises(RequestError, match=r"the chat template (refused|failed)"):
        ChatTemplate(source).render(HI)


@pytest.mark.parametrize("source", [*BLOW_UPS.values(), *SLOW.values()], ids=[*BLOW_UPS, *SLOW])
def test_a_template_cannot_grow_or_run_without_bound(source: str) -> None:
    began = time.process_time()
    with pytest.raises(RequestError, match="out of bounds"):
        ChatTemplate(source).render(HI)
    assert time.process_time() - began < 30


@pytest.mark.parametrize("source", ["{% if %}", "{{ 'a", "{% for x in y %}", "{% block a %}{% endblock %}" * 2])
def test_what_is_no_template_is_refused(source: str) -> None:
    with pytest.raises(PackError, match="cannot be compiled"):
        ChatTemplate(source)


def test_no_messages_are_refused() -> None:
    with pytest.raises(RequestError, match="no messages"):
        ChatTemplate("").render([])


def test_the_templates_own_words_are_passed_on() -> None:
    with pytest.raises(RequestError, match="System message must come first"):
        ChatTemplate("{{ raise_exception('System message must come first') }}").render(HI)


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('cannot take ' + messages[0].content) }}",
        "{{ messages[0].content.missing.more }}",
        "{{ messages[0].content + 1 }}",
        "{{ {}[messages[0].content].x }}",
        "{{ messages[0].content|int|abs|round(method=messages[0].content) }}",
    ],
)
def test_an_error_never_quotes_a_message(source: str) -> None:
    with pytest.raises(RequestError) as caught:
        ChatTemplate(source).render(HI)
    assert "canary" not in str(caught.value)


def test_markup_in_a_message_is_only_text() -> None:
    hostile = "{{ 7 * 7 }}{% for x in y %}{# #}"
    assert ChatTemplate("{{ messages[0].content }}").render([{"role": "user", "content": hostile}]) == hostile


def test_the_clock_is_the_one_passed_in() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2026, 2, 3, tzinfo=UTC))
    assert template.render(HI) == "03 Feb 2026"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a'.encode() * 10**9 }}",
        "{{ ('a'|attr('encode'))() * 10**9 }}",
        "{{ (['a']|map('attr', 'encode')|first)() * 10**9 }}",
        "{{ (1).to_bytes(10**9, 'big') }}",
    ],
)
def test_a_template_makes_no_bytes(source: str) -> None:
    with pytest.raises(RequestError, match="refused the messages"):
        ChatTemplate(source).render(HI)


def test_renderings_do_not_share_their_bounds() -> None:
    template = ChatTemplate("{% for a in range(90000) %}{% endfor %}{% for a in range(90000) %}{% endfor %}.")
    assert [template.render(HI) for _ in range(4)] == ["."] * 4
