"""Whatever stands in a policy file: it loads, or each of its faults has a place in the file."""

from importlib import resources

import hypothesis.strategies as st
from hypothesis import given, settings

from router.errors import Finding, PolicyError
from router.policy.load import parse

DEFAULT = resources.files("router.policy").joinpath("default.yaml").read_bytes()
# Without the comments before and the cases after: what is left is short enough to break everywhere.
CORE = b"\n".join(line for line in DEFAULT.partition(b"\ntests:")[0].split(b"\n") if b"#" not in line and line)
WORDS = rb"- |: |{|}|[|]|'|''|\ud800|&a |*a|!!map |?|(|<<: |1e999|.nan|2001-01-01|0x1|~|#|when: |request.|== ".split(
    b"|"
)
PIECES = st.sampled_from(
    [*WORDS, b"\n", b" ", b"\t", b"\r", b'"', b"|", b">", b"---\n", b"\xff", b"\x00", b"\xc2\x85", b"\xe2\x80\xa8"]
)


def findings(raw: bytes) -> tuple[Finding, ...]:
    try:
        parse(raw, "p")
    except PolicyError as exc:
        return exc.findings
    return ()


def check(raw: bytes) -> None:
    lines = raw.decode("utf-8", "replace").replace("\r", "\n").split("\n")
    for finding in findings(raw):
        assert 1 <= finding.line <= len(lines), finding
        assert finding.column >= 1, finding
        assert finding.message, finding


@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    check(raw)


@settings(max_examples=300)
@given(st.integers(0, len(CORE)), st.integers(0, 12), st.lists(PIECES, max_size=3))
def test_a_policy_with_something_cut_out_and_put_in(start: int, length: int, pieces: list[bytes]) -> None:
    check(CORE[:start] + b"".join(pieces) + CORE[start + length :])
