"""`flashgate policy`: check a policy file, run its cases, explain what it would do with a request."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TextIO

from router.errors import PolicyError, RequestError

EPILOG = """\
a policy from nothing to a running gateway:
  flashgate policy check policy.yaml                      every fault with its line and column
  flashgate policy test policy.yaml                       the cases that the file itself holds
  flashgate policy explain policy.yaml request.json       what would happen to this request, and why
  flashgate serve --policy policy.yaml                    reads it again whenever it changes

ops/policies/ holds policies to start from; router/policy/default.yaml, which is built in, explains every key.
"""
CHECK_EPILOG = """\
examples:
  flashgate policy check policy.yaml           every fault as FILE:LINE:COLUMN, or `ok`
  flashgate policy check policy.yaml --json    the same for an editor or a script

exit status: 0 the gateway would load it, 1 it would not, 2 wrong usage
"""
TEST_EPILOG = """\
cases stand in the policy file itself:
  tests:
    - name: health data stays however slow the edge is
      request: {tags: [phi], latency: {ttft_ms: 1000}}
      edge: slow                  # up, slow, unmeasured, down, or a state with numbers
      expect: {lane: edge, reason: late_but_private}

exit status: 0 all pass, 1 a case fails or the file has faults, 2 wrong usage
"""
EXPLAIN_EPILOG = """\
examples:
  echo '{"messages": [{"role": "user", "content": "Hi"}], "privacy_tags": ["phi"]}' |
    flashgate policy explain policy.yaml - --edge slow
  flashgate policy explain policy.yaml request.json --edge down --json

REQUEST.json is what /v1/chat/completions takes (with its `flashgate` object), or has privacy_tags, latency
({"ttft_ms", "total_ms", "class", "strict"}), min_capability, max_reach and tenant at the top level. Its text is
searched for identifiers and never shown. Nothing is sent anywhere.

exit status: 0 explained, also a refusal; 1 the policy or the request has faults, 2 wrong usage
"""
_COLORS = {"bold": "1", "dim": "2", "red": "31", "green": "32"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `policy` with its own commands."""
    parser = subparsers.add_parser(
        "policy",
        help="check, test and explain routing policies",
        description="Work with routing policies. Offline: nothing is sent anywhere, no gateway is needed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION", title="actions")
    check = _add_action(actions, "check", "find every fault of a policy file", CHECK_EPILOG)
    check.add_argument("--json", action="store_true", help="write findings as JSON")
    check.set_defaults(func=check_policy)
    test = _add_action(actions, "test", "run the cases in a policy file", TEST_EPILOG)
    test.set_defaults(func=test_policy)
    explain = _add_action(actions, "explain", "say what a policy would do with a request, and why", EXPLAIN_EPILOG)
    explain.add_argument("request", metavar="REQUEST.json", help="a request; - reads standard input")
    explain.add_argument("--edge", choices=("up", "slow", "unmeasured", "down"), default="up", help="(default: up)")
    explain.add_argument("--cloud", choices=("up", "down"), default="up", help="(default: up)")
    for lane in ("edge", "cloud"):
        explain.add_argument(f"--{lane}-capability", default="", metavar="CLASS", help="(default: none is known)")
    explain.add_argument("--json", action="store_true", help="write JSON")
    explain.set_defaults(func=explain_request)


def _add_action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, what: str, epilog: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="policy file")
    return parser


def check_policy(args: argparse.Namespace) -> int:
    """`policy check`."""
    from router.policy.load import load_file

    try:
        policy = load_file(args.file)
    except PolicyError as exc:
        if args.json:
            fields = [{name: getattr(f, name) for name in f.__slots__} for f in exc.findings]
            _write_json({"ok": False, "findings": fields})
        else:
            sys.stderr.write(f"{exc}\n{args.file}: {_number(len(exc.findings), 'fault')}\n")
        return 1
    if args.json:
        _write_json({"ok": True, "policy_hash": policy.hash, "findings": []})
    else:
        sys.stdout.write(f"{args.file}: ok, {_number(len(policy.rules), 'rule')}, {policy.hash}\n")
    return 0


def test_policy(args: argparse.Namespace) -> int:
    """`policy test`. Raises: PolicyError."""
    from router.policy.load import load_with_cases

    cases = load_with_cases(args.file).cases
    for case in cases:
        verdict = _paint(sys.stdout, "green", "ok  ") if case.has_passed else _paint(sys.stdout, "red", "FAIL")
        sys.stdout.write(f"{verdict} {case.name}\n")
        sys.stdout.writelines(f"       {difference}\n" for difference in case.differences)
    failed = sum(not case.has_passed for case in cases)
    sys.stdout.write(f"{args.file}: {_number(len(cases), 'case')}, {failed} failed\n")
    return 1 if failed else 0


def explain_request(args: argparse.Namespace) -> int:
    """`policy explain`. Raises: PolicyError, RequestError."""
    from router.decide import decide
    from router.policy import report, request_file
    from router.policy.cases import lane_state
    from router.policy.load import load_file
    from router.policy.schema import PRESETS, LaneModel
    from router.privacy.floor import floor_of
    from router.signals.features import features_of

    policy = load_file(args.file)
    request = request_file.read(_request_bytes(args.request))
    states = [
        lane_state("edge", LaneModel.model_validate({**PRESETS[args.edge], "capability": args.edge_capability})),
        lane_state("cloud", LaneModel(available=args.cloud == "up", capability=args.cloud_capability)),
    ]
    outcome = decide(request, features_of(request), policy, floor_of(request, policy.privacy), states)
    if args.json:
        _write_json(report.as_json(outcome))
    else:
        sys.stdout.write(report.as_text(outcome, lambda color, text: _paint(sys.stdout, color, text)) + "\n")
    return 0


def _request_bytes(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as exc:
        raise RequestError(f"{name}: cannot be read: {exc.strerror}") from exc


def _write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _paint(stream: TextIO, color: str, text: str) -> str:
    """Colour on a terminal only, and not against the wish of its owner (no-color.org)."""
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"
