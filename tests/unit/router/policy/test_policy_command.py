"""`flashgate policy`, as people and scripts call it."""

import io
import json
from pathlib import Path

import pytest

from router.cli import main

CANARY = "canary4711"
POLICY = """\
version: 1
capabilities: [basic, frontier]
rules:
  - {name: long, when: request.prompt_tokens > 1000, prefer: cloud, reason: long_prompt}
  - {name: tenant-rule, when: "1 / size(request.tenant) > 0 || request.tenant == 'x'", prefer: cloud, reason: x}
default: {prefer: edge, reason: edge_first}
tests:
  - {name: it works, expect: {lane: edge}}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["policy", *map(str, arguments)])
    output = capsys.readouterr()
    return status, output.out, output.err


def explain(capsys: pytest.CaptureFixture[str], policy: Path, request: object, *options: str) -> tuple[int, str, str]:
    path = policy.with_name("request.json")
    path.write_text(request if isinstance(request, str) else json.dumps(request))
    return run(capsys, "explain", policy, path, *options)


def body(**fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": f"{CANARY} jane@example.com"}], **fields}


@pytest.mark.parametrize("arguments", [[], ["check"], ["nonsense"], ["explain", "a"], ["check", "a", "--edge", "up"]])
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run(capsys, *arguments)
    assert error.value.code == 2


@pytest.mark.parametrize("action", ["check", "test", "explain", ""])
def test_help_teaches_with_examples(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        run(capsys, *([action] if action else []), "--help")
    assert error.value.code == 0
    assert f"flashgate policy {action or 'check'}" in capsys.readouterr().out


def test_check_reports_every_fault_of_a_bad_file(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text(POLICY.replace("prompt_tokens", "promt_tokens").replace("version: 1", "version: 2"))
    status, out, err = run(capsys, "check", policy)
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"{policy}:1:10: version: must be 1",
        f"{policy}:4:31: when: undeclared reference to 'request.promt_tokens'; did you mean request.prompt_tokens or "
        "request.max_tokens or request.tenant?",
        f"{policy}: 2 faults",
    ]


def test_check_reports_faults_as_json(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text("version: 1")
    status, out, _ = run(capsys, "check", policy, "--json")
    finding = {"file": str(policy), "line": 1, "column": 1, "message": "default is missing", "remedy": ""}
    assert (status, json.loads(out)) == (1, {"ok": False, "findings": [finding]})


def test_check_says_ok(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "check", policy)
    assert (status, err) == (0, "")
    assert out.startswith(f"{policy}: ok, 2 rules, sha256:")
    status, out, _ = run(capsys, "check", policy, "--json")
    assert (status, json.loads(out)["ok"]) == (0, True)


def test_test_names_each_case_and_what_differs(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text(POLICY + "  - {name: it does not, edge: down, expect: {lane: edge}}\n")
    status, out, _ = run(capsys, "test", policy)
    assert status == 1
    assert out.splitlines() == [
        "ok   it works",
        "FAIL it does not",
        "       lane: expected edge, got cloud",
        f"{policy}: 2 cases, 1 failed",
    ]


def test_test_passes(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "test", policy)
    assert (status, out) == (0, f"ok   it works\n{policy}: 1 case, 0 failed\n")


def test_test_of_a_bad_file_is_an_error(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text("version: 1")
    status, _, err = run(capsys, "test", policy)
    assert (status, err) == (1, f"flashgate: error: {policy}:1:1: default is missing\n")


@pytest.mark.parametrize(
    ("request_text", "message"),
    [
        ("{", "the body is not JSON"),
        ("[]", "the body must be a JSON object"),
        ('{"messages": []}', "messages: at least one message is needed"),
        ('{"messages": [{"role": "user", "content": "x"}], "tenant": 3}', "tenant: must be a text"),
        ('{"messages": [{"role": "user", "content": "x"}], "sampling": 3}', "sampling: must be an object"),
        ('{"messages": [{"role": "user", "content": "x"}], "flashgate": 3}', "flashgate: must be an object"),
        (
            '{"messages": [{"role": "user", "content": "x"}], "flashgate": {"latency": {}}, "latency": {}}',
            "given twice",
        ),
        ('{"messages": [{"role": "user", "content": "x"}], "max_reach": "moon"}', "max_reach: must be one of device"),
        ('{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}', "max_tokens: must be from 1"),
    ],
)
def test_a_bad_request_is_an_error(
    policy: Path, capsys: pytest.CaptureFixture[str], request_text: str, message: str
) -> None:
    status, out, err = explain(capsys, policy, request_text)
    assert (status, out) == (1, "")
    assert message in err


def test_a_request_that_is_not_there_is_an_error(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "explain", policy, policy.with_name("absent.json"))
    assert (status, "cannot be read: No such file" in err) == (1, True)


def test_explain_says_why_and_never_repeats_the_request(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = body(privacy_tags=["phi", CANARY], tenant=CANARY, latency={"ttft_ms": 10}, sampling={"stop": [CANARY]})
    status, out, err = explain(capsys, policy, request, "--edge", "slow")
    assert (status, err) == (0, "")
    assert CANARY not in out
    lines = out.splitlines()
    assert lines[0] == "outcome  edge by rule default: late_but_private, edge_first"
    assert lines[1].startswith("         first token in 13.50 s")
    assert "           tag phi: device" in lines
    assert "           unknown tag, number 2: device" in lines
    assert "           detected email: device" in lines
    assert lines[-2:] == [
        "  1. edge     reach device        late_but_private",
        "  -  cloud    reach cloud         floor_forbids_cloud",
    ]


def test_explain_is_the_same_as_json(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = body(flashgate={"privacy_tags": ["public"], "max_reach": "device"}, model="gpt", max_tokens=5)
    status, out, _ = explain(capsys, policy, request, "--json")
    report = json.loads(out)
    assert (status, CANARY in out) == (0, False)
    assert (report["lane"], report["rule"], report["reasons"]) == ("edge", "default", ["edge_first"])
    assert report["floor"] == {
        "reach": "device",
        "steps": ["tag public: cloud", "detected email: device", "caller's max_reach: device"],
        "detections": ["email"],
    }
    assert report["candidates"][0]["predicted_ttft_ms"] > 0
    assert [trace["outcome"] for trace in report["rules"]] == ["false", "false"]


def test_explain_shows_a_refusal(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = explain(capsys, policy, body(), "--edge", "down")
    assert (status, out.splitlines()[0]) == (0, "outcome  refused: no_backend_within_floor, may be retried")
    _, out, _ = explain(capsys, policy, body(min_capability="frontier"), "--json")
    assert (json.loads(out)["refusal"], json.loads(out)["can_retry"]) == ("capability_unavailable", False)
    _, out, _ = explain(capsys, policy, body(min_capability="frontier"))
    assert out.splitlines()[0] == "outcome  refused: capability_unavailable"


def test_explain_takes_the_lanes_classes(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = body(min_capability="frontier")
    _, out, _ = explain(capsys, policy, request, "--edge-capability", "frontier", "--cloud-capability", "basic")
    assert out.splitlines()[0] == "outcome  edge by rule default: edge_first"


def test_explain_shows_the_rule_that_matched_and_one_that_failed(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 2000}]}
    _, out, _ = explain(capsys, policy, long)
    assert out.splitlines()[0] == "outcome  cloud by rule long: long_prompt"
    assert "  long         true         request.prompt_tokens > 1000" in out.splitlines()
    _, out, _ = explain(capsys, policy, {"messages": [{"role": "user", "content": "x"}], "tenant": ""})
    assert out.splitlines()[0] == "outcome  edge by rule tenant-rule: policy_error"
    assert "error: divide by zero" in out


def test_explain_reads_standard_input(
    policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(body()).encode())))
    status, out, _ = run(capsys, "explain", policy, "-", "--edge", "unmeasured", "--cloud", "down")
    assert (status, out.splitlines()[0]) == (0, "outcome  edge by rule default: edge_first")


@pytest.mark.parametrize(("no_color", "is_colored"), [("", True), ("1", False)])
def test_colour_is_for_terminals_whose_owner_wants_it(
    policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_color: str, is_colored: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _, out, _ = run(capsys, "test", policy)
    assert ("\x1b[32m" in out) is is_colored
