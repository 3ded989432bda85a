"""What `flashgate ask` prints, from messages as the gateway sends them."""

import io
import json
from collections.abc import Iterator

import pytest
from flashgate.v1 import common_pb2, gateway_pb2

from router.cli import main
from router.gateway import ask_report
from router.gateway.ask_client import AskClient, AskError

DECISION = gateway_pb2.Decision(
    decision_id="d1",
    lane=gateway_pb2.LANE_CLOUD,
    backend="cloud",
    model="m",
    rule="busy",
    reasons=["fallback", "edge_failed"],
    floor=common_pb2.REACH_CLOUD,
    floor_steps=["untagged: cloud"],
    detections=["email"],
    fallbacks=["edge: failed"],
)
COMPLETION = gateway_pb2.Completion(usage=common_pb2.Usage(prompt_tokens=3, completion_tokens=2))
COMPLETION.timings.ttft.FromMilliseconds(250)
COMPLETION.timings.total.FromMilliseconds(1500)
Event = gateway_pb2.GenerateResponse


def answer(*texts: str) -> list[Event]:
    deltas = [Event(delta=gateway_pb2.TextDelta(text=text)) for text in texts]
    return [Event(decision=DECISION), *deltas, Event(completion=COMPLETION)]


def test_answer_and_route() -> None:
    out, notes = io.StringIO(), io.StringIO()
    ask_report.write_answer(answer("Hello", " world"), out, notes)
    assert out.getvalue() == "Hello world\n"
    assert notes.getvalue() == (
        "route: cloud (cloud) | model m | rule busy | reasons fallback, edge_failed | floor cloud | after edge: failed "
        "| ttft 250 ms | total 1500 ms | tokens 3+2\n"
    )


def test_predicted_times_stand_beside_the_real_ones() -> None:
    decision = gateway_pb2.Decision()
    decision.CopyFrom(DECISION)
    decision.predicted_ttft.FromMilliseconds(300)
    assert "ttft 250 ms, predicted 300 ms" in ask_report.route_line(decision, COMPLETION)
    assert "ttft predicted 300 ms" in ask_report.route_line(decision, None)


@pytest.mark.parametrize("text", ["Hello\n", "Hello"])
def test_answer_ends_with_one_line_end(text: str) -> None:
    out = io.StringIO()
    ask_report.write_answer(answer(text), out, io.StringIO())
    assert out.getvalue() == "Hello\n"


def test_answer_that_breaks_off_ends_its_line() -> None:
    def broken() -> Iterator[Event]:
        yield from answer("Hel")[:2]
        raise AskError("backend edge: UNAVAILABLE")

    out = io.StringIO()
    with pytest.raises(AskError):
        ask_report.write_answer(broken(), out, io.StringIO())
    assert out.getvalue() == "Hel\n"


def test_json_answer_is_one_object() -> None:
    out = io.StringIO()
    ask_report.write_answer_json(answer("Hel", "lo"), out)
    value = json.loads(out.getvalue())
    assert (value["text"], value["decision"]["rule"], value["completion"]["usage"]["prompt_tokens"]) == (
        "Hello",
        "busy",
        3,
    )


def test_explanation_shows_rules_backends_and_the_floors_steps() -> None:
    explanation = gateway_pb2.ExplainResponse(
        decision=DECISION,
        rules=[
            gateway_pb2.RuleTrace(rule="private", condition="floor == 'device'", outcome="false"),
            gateway_pb2.RuleTrace(rule="busy", matched=True, condition="edge.queue_depth > 3", outcome="true"),
        ],
        backends=[gateway_pb2.BackendTrace(backend="cloud", reach=common_pb2.REACH_CLOUD, allowed=True, reason="busy")],
    )
    out = io.StringIO()
    ask_report.write_explanation(explanation, out, as_json=False)
    assert out.getvalue().splitlines() == [
        "would answer: cloud (cloud) | model m | rule busy | reasons fallback, edge_failed | floor cloud "
        "| after edge: failed",
        "  floor: untagged: cloud",
        "  detected: email",
        "rules",
        "    private: false   when floor == 'device'",
        "  * busy: true   when edge.queue_depth > 3",
        "backends",
        "    cloud (cloud): allowed: busy",
    ]


@pytest.mark.parametrize("address", ["", "nowhere", "host:", "host:port"])
def test_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(AskError, match="must be HOST:PORT"):
        AskClient(address, "", None)


def test_key_that_no_metadata_can_carry_is_refused_without_showing_it() -> None:
    with pytest.raises(AskError, match="FLASHGATE_API_KEY") as caught:
        AskClient("127.0.0.1:1", "secret\n", None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [["\udcff"], ["hi", "--system", "\udcff"], ["hi", "--tags", "\udcff"]],
    ids=["prompt", "system", "tags"],
)
def test_bytes_that_are_no_text_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", *arguments, "--address", "127.0.0.1:1"]) == 1
    assert "is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [["--ttft-ms", "0"], ["--ttft-ms", "soon"], ["--seed", "-1"], ["--max-reach", "moon"]]
)
def test_wrong_usage_is_refused(option: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ask", "hi", *option])
    assert caught.value.code == 2
