"""Loading policies: every fault at its place, all at once."""

from pathlib import Path

import pytest

from router.errors import PolicyError
from router.policy.load import BUILT_IN_SOURCE, load_built_in, load_file, load_with_cases, parse
from router.privacy.reach import Reach
from router.signals.predict import Bounds

MINIMAL = "version: 1\ndefault: {prefer: edge, reason: because}\n"


def faults(text: str) -> list[str]:
    with pytest.raises(PolicyError) as error:
        parse(text.encode(), "p")
    return [str(finding) for finding in error.value.findings]


def rule(when: str) -> str:
    return f"{MINIMAL}rules:\n  - name: one\n    when: {when}\n    prefer: cloud\n    reason: why\n"


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("default: {prefer: edge, reason: a}", "p:1:1: version is missing"),
        ("version: 1", "p:1:1: default is missing"),
        ("[]", "p:1:1: the file: must be a mapping of keys to values"),
        ("just text", "p:1:1: the file: must be a mapping of keys to values"),
        (MINIMAL.replace("1", "2"), "p:1:10: version: must be 1"),
        (MINIMAL.replace("1", "'1'"), "p:1:10: version: must be 1"),
        (
            MINIMAL.replace("edge", "moon"),
            "p:2:19: default.prefer: must be 'edge', 'cloud', 'edge_only' or 'cloud_only'",
        ),
        (
            MINIMAL.replace("because", "Be Cause"),
            "p:2:33: default.reason: must be at most 64 lower-case letters, digits and _ (in names also . and -)",
        ),
        (MINIMAL.replace("reason: because", "raison: x"), "p:2:10: reason is missing"),
        (
            MINIMAL + "untaged: cloud",
            "p:3:1: unknown key untaged; known are version, description, tags, untagged, "
            "capabilities, latency_classes, rules, default, tests",
        ),
        (MINIMAL + "untagged: moon", "p:3:11: untagged: must be 'device', 'fleet', 'cloud_masked' or 'cloud'"),
        (
            MINIMAL + "tags: {phi: fleet}",
            "p:3:13: tag phi is built in as device; fleet would loosen it; write device or stricter, or another tag",
        ),
        (
            MINIMAL + "tags: {Not A Tag: fleet}",
            "p:3:8: tags.Not A Tag: must be at most 64 lower-case letters, digits and _ (in names also . and -)",
        ),
        (MINIMAL + "tags: [phi]", "p:3:7: tags: must be a mapping of keys to values"),
        (MINIMAL + "capabilities: [a, b, a]", "p:3:22: a stands twice in capabilities; each name must be its own"),
        (MINIMAL + "capabilities: a", "p:3:15: capabilities: must be a list"),
        (
            MINIMAL + "latency_classes: {slow: {}}",
            "p:3:19: latency_classes.slow: must be 'interactive', 'batch' or 'background'",
        ),
        (
            MINIMAL + "latency_classes: {batch: {ttft_ms: 0}}",
            "p:3:36: latency_classes.batch.ttft_ms: must be greater than 0",
        ),
        (MINIMAL + "latency_classes: {batch: {ttft_s: 1}}", "p:3:27: unknown key ttft_s; known are ttft_ms, total_ms"),
        (MINIMAL + "rules: {}", "p:3:8: rules: must be a list"),
        (MINIMAL + "rules: [1]", "p:3:9: rules.0: must be a mapping of keys to values"),
        (
            rule("true").replace("one", "default"),
            "p:4:11: a rule cannot be named default; the section `default` has that name",
        ),
        (
            rule("true") + "  - {name: one, when: 'true', prefer: edge, reason: why}",
            "p:8:12: one stands twice in rules; each name must be its own",
        ),
        (rule("true"), "p:5:11: rules.0.when: must be a text; put it in quotes"),
        (
            MINIMAL + "tests: [{name: a, expect: {}}]",
            "p:3:27: tests.0.expect: nothing is expected; name lane, refusal, rule, reason or floor",
        ),
        (
            MINIMAL + "tests: [{name: a, expect: {lane: edge, refusal: x}}]",
            "p:3:27: tests.0.expect: a request is answered by a lane or refused: name one",
        ),
        (
            MINIMAL + "tests: [{name: a, edge: gone, expect: {lane: edge}}]",
            "p:3:25: tests.0.edge: must be up, slow, unmeasured, down or a state",
        ),
        (
            MINIMAL + "tests: [{name: a, request: {txt: hi}, expect: {lane: edge}}]",
            "p:3:29: unknown key txt; known are "
            "tags, tenant, text, prompt_tokens, max_tokens, latency, min_capability, max_reach",
        ),
        (
            MINIMAL + "tests: [{name: a, expect: {lane: cloud, floor: device}}]",
            "p:3:9: test 'a' fails: lane: expected cloud, got edge; floor: expected device, got cloud",
        ),
    ],
)
def test_a_fault_has_a_place_and_a_remedy(text: str, finding: str) -> None:
    assert finding in faults(text)


@pytest.mark.parametrize(
    ("when", "finding"),
    [
        (
            "request.tenent == 'x'",
            "p:5:18: when: undeclared reference to 'request.tenent'; did you mean request.tenant",
        ),
        ("true && zzz", "p:5:19: when: undeclared reference to 'zzz'; known are request.tags, request.tenant, "),
        ("request.tags == 3", "p:5:24: when: found no matching overload for '_==_'"),
        (
            "edge.decode_tokens_per_second > 1",
            "p:5:41: when: found no matching overload for '_>_' applied to '(double, "
            "int)'; counts and milliseconds are whole numbers (1), rates are not (1.0)",
        ),
        ("request.tenant", "p:5:11: when: the condition is of type STRING, not bool"),
        ("dyn(true)", "p:5:11: when: the condition is of type DYN, not bool"),
        ("floor ==", "p:5:19: when: Syntax error"),
        ("''", "p:5:12: when: Syntax error"),
        ("1 / 0 > 1", "p:5:11: when: the condition has no value for an ordinary request: divide by zero"),
        (
            "request.tenant.matches('(')",
            "p:5:11: when: the condition has no value for an ordinary request: invalid regular expression",
        ),
        ("(" * 100 + "true" + ")" * 100, "p:5:11: when: Expression recursion limit exceeded"),
        ("\"'phy' in request.tags\"", "p:5:12: when: 'phy' is unknown: known are biometric, "),
        ("\"'emial' in detections\"", "p:5:12: when: 'emial' is unknown: known are api_key, "),
        ("floor == 'devise'", "p:5:20: when: 'devise' is unknown: known are cloud, cloud_masked, device, fleet"),
        ('floor != ""', "p:5:20: when: '' is unknown"),
        ("latency.class == 'fast'", "p:5:28: when: 'fast' is unknown: known are background, batch, interactive"),
        ("request.min_capability == 'x'", "p:5:37: when: 'x' is unknown"),
        ("|\n      true &&\n        nope", "p:7:9: when: undeclared reference to 'nope'"),
    ],
)
def test_a_conditions_fault_has_its_place_in_the_file(when: str, finding: str) -> None:
    assert any(found.startswith(finding) for found in faults(rule(when)))


@pytest.mark.parametrize("when", ["'phi' in request.tags", "'PROJECT-X' in request.tags", "latency.class == ''"])
def test_known_names_are_known(when: str) -> None:
    tags = "tags: {project-x: device}\n"
    assert parse((tags + rule(f'"{when.lower()}"')).encode(), "p").rules[0].condition.source == when.lower()


def test_all_faults_come_at_once_in_the_order_of_the_file() -> None:
    text = rule("nope").replace("cloud", "moon") + "tests: [{name: a, expect: {}}]\nextra: 1\nversion: 1\n"
    lines = [int(fault.split(":")[1]) for fault in faults(text)]
    assert lines == [5, 6, 8, 9, 10]


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"absent\.yaml:1:1: cannot be read: No such file"):
        load_file(tmp_path / "absent.yaml")


def test_the_smallest_policy_has_defaults() -> None:
    policy = parse(MINIMAL.encode(), "p")
    assert (policy.privacy.untagged, policy.capabilities, policy.latency_classes) == (Reach.CLOUD, (), {})
    assert (policy.rules, policy.default.prefer, policy.default.reason) == ((), "edge", "because")


def test_everything_in_the_file_is_in_the_policy() -> None:
    policy = parse(
        (
            "untagged: fleet\ntags: {project-x: cloud_masked}\ncapabilities: [low, high]\n"
            "latency_classes: {interactive: {ttft_ms: 1500, total_ms: 9000}}\n" + rule("'true'")
        ).encode(),
        "p",
    )
    assert policy.privacy.untagged is Reach.FLEET
    assert policy.privacy.tags.reach_of("project-x") is Reach.CLOUD_MASKED
    assert policy.capabilities == ("low", "high")
    assert policy.latency_classes == {"interactive": Bounds(1.5, 9.0)}
    assert [(r.name, r.choice.prefer, r.choice.reason) for r in policy.rules] == [("one", "cloud", "why")]


def test_the_hash_is_of_the_content_not_of_the_layout() -> None:
    one, other = (
        parse(MINIMAL.encode(), "p"),
        parse(b"# hi\ndefault:\n  reason: because\n  prefer: edge\nversion: 1", "q"),
    )
    assert one.digest == other.digest
    assert one.hash == f"sha256:{one.digest[:12]}"
    assert parse(MINIMAL.replace("because", "why").encode(), "p").digest != one.digest


def test_a_policy_that_fails_its_own_cases_can_be_looked_at_but_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(MINIMAL + "tests:\n  - {name: a, expect: {lane: edge}}\n  - {name: b, expect: {refusal: x}}\n")
    assert [case.has_passed for case in load_with_cases(path).cases] == [True, False]
    with pytest.raises(PolicyError, match=r":5:5: test 'b' fails: refusal: expected x, got none$"):
        load_file(path)


def test_the_built_in_policy_loads_and_has_cases() -> None:
    policy = load_built_in()
    assert policy.source == BUILT_IN_SOURCE
    assert policy.default.prefer == "edge"


EXAMPLES = sorted((Path(__file__).parents[4] / "ops" / "policies").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_and_has_cases(path: Path) -> None:
    assert load_file(path).rules
    assert len(load_with_cases(path).cases) >= 5


def test_there_are_examples() -> None:
    assert EXAMPLES
