"""What `flashgate ask` prints."""

import json
from collections.abc import Iterable
from typing import TextIO

from flashgate.v1 import common_pb2, gateway_pb2
from google.protobuf import duration_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message


def write_answer(events: Iterable[gateway_pb2.GenerateResponse], out: TextIO, notes: TextIO) -> None:
    """The text as it comes, then one line about the route."""
    decision = gateway_pb2.Decision()
    ends_line = True
    try:
        for event in events:
            match event.WhichOneof("event"):
                case "decision":
                    decision = event.decision
                case "delta":
                    out.write(event.delta.text)
                    out.flush()
                    ends_line = event.delta.text.endswith("\n")
                case "completion":
                    if not ends_line:
                        out.write("\n")
                    out.flush()
                    ends_line = True
                    notes.write(f"route: {route_line(decision, event.completion)}\n")
    finally:
        if not ends_line:
            # An answer that breaks off must not swallow the line that says so.
            out.write("\n")
            out.flush()


def write_answer_json(events: Iterable[gateway_pb2.GenerateResponse], out: TextIO) -> None:
    """One object: text, decision, completion, with the names of the wire contract."""
    answer: dict[str, object] = {}
    texts: list[str] = []
    for event in events:
        match event.WhichOneof("event"):
            case "decision":
                answer["decision"] = _as_dict(event.decision)
            case "delta":
                texts.append(event.delta.text)
            case "completion":
                answer["completion"] = _as_dict(event.completion)
    out.write(json.dumps({"text": "".join(texts), **answer}, ensure_ascii=False) + "\n")


def write_explanation(answer: gateway_pb2.ExplainResponse, out: TextIO, *, as_json: bool) -> None:
    if as_json:
        out.write(json.dumps(_as_dict(answer), ensure_ascii=False) + "\n")
        return
    if answer.refusal:
        out.write(f"would be refused: {answer.refusal}\n")
    if answer.HasField("decision"):
        out.write(f"would answer: {route_line(answer.decision, None)}\n")
        for step in answer.decision.floor_steps:
            out.write(f"  floor: {step}\n")
        for kind in answer.decision.detections:
            out.write(f"  detected: {kind}\n")
    out.write("rules\n")
    for rule in answer.rules:
        out.write(f"  {'*' if rule.matched else ' '} {rule.rule}: {rule.outcome}   when {rule.condition or 'always'}\n")
    out.write("backends\n")
    for backend in answer.backends:
        verdict = "allowed" if backend.allowed else "not allowed"
        out.write(f"    {backend.backend} ({_reach(backend.reach)}): {verdict}: {backend.reason}\n")


def route_line(decision: gateway_pb2.Decision, completion: gateway_pb2.Completion | None) -> str:
    """Lane, model, rule, reasons, floor, times: everything about one route in one line."""
    parts = [
        f"{gateway_pb2.Lane.Name(decision.lane).removeprefix('LANE_').lower()} ({decision.backend})",
        f"model {decision.model or 'unknown'}",
        f"rule {decision.rule}",
        f"reasons {', '.join(decision.reasons)}",
        f"floor {_reach(decision.floor)}",
        *(f"after {fallback}" for fallback in decision.fallbacks),
        _time("ttft", decision.predicted_ttft, decision.HasField("predicted_ttft"), completion),
        _time("total", decision.predicted_total, decision.HasField("predicted_total"), completion),
    ]
    if completion is not None and completion.HasField("usage"):
        usage = completion.usage
        parts.append(f"tokens {usage.prompt_tokens}+{usage.completion_tokens}")
    if completion is not None and completion.HasField("deviations"):
        kept = completion.deviations.router_weight_kept
        parts.append(f"not wholly the model's own answer ({kept:.1%} of its routers' weight kept)")
    return " | ".join(part for part in parts if part)


def _time(
    name: str, predicted: duration_pb2.Duration, is_predicted: bool, completion: gateway_pb2.Completion | None
) -> str:
    """Real and predicted, as far as each is known."""
    texts = []
    if completion is not None:
        real: duration_pb2.Duration = getattr(completion.timings, name)
        texts.append(f"{_milliseconds(real)} ms")
    if is_predicted:
        texts.append(f"predicted {_milliseconds(predicted)} ms")
    return f"{name} {', '.join(texts)}" if texts else ""


def _milliseconds(duration: duration_pb2.Duration) -> int:
    return round(duration.seconds * 1000 + duration.nanos / 1e6)


def _reach(value: int) -> str:
    return common_pb2.Reach.Name(common_pb2.Reach.ValueType(value)).removeprefix("REACH_").lower()


def _as_dict(message: Message) -> dict[str, object]:
    return MessageToDict(message, preserving_proto_field_name=True)
