"""Between `flashgate.v1` messages and the gateway's values. Pure."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Final

from flashgate.v1 import common_pb2, gateway_pb2
from google.protobuf import duration_pb2
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.unknown_fields import UnknownFieldSet

from router.gateway.answer import Completion, Decision
from router.gateway.limits import MAX_MESSAGES
from router.gateway.parameter import ParameterError
from router.gateway.use_case import Explanation
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, LatencyClass, LatencyTolerance, Message, Sampling

_LANES: Final = {"edge": gateway_pb2.LANE_EDGE, "cloud": gateway_pb2.LANE_CLOUD}
_REACHES: Final = {
    Reach.DEVICE: common_pb2.REACH_DEVICE,
    Reach.FLEET: common_pb2.REACH_FLEET,
    Reach.CLOUD_MASKED: common_pb2.REACH_CLOUD_MASKED,
    Reach.CLOUD: common_pb2.REACH_CLOUD,
}
_CLASSES: Final[dict[int, LatencyClass | None]] = {
    gateway_pb2.LATENCY_CLASS_UNSPECIFIED: None,
    gateway_pb2.LATENCY_CLASS_INTERACTIVE: "interactive",
    gateway_pb2.LATENCY_CLASS_BATCH: "batch",
    gateway_pb2.LATENCY_CLASS_BACKGROUND: "background",
}
_FINISH_REASONS: Final = {"stop": common_pb2.FINISH_REASON_STOP, "length": common_pb2.FINISH_REASON_LENGTH}


def request(message: gateway_pb2.GenerateRequest, tenant: str) -> GenerationRequest:
    """Raises ParameterError for a field or an enum value that this version does not know, and for more messages than
    are worth converting. Other ranges are checked by `limits`."""
    if len(message.messages) > MAX_MESSAGES:
        raise ParameterError("messages", f"has {len(message.messages)} messages; at most {MAX_MESSAGES}")
    if _has_unknown_field(message):
        # A later version's, or one of the wrong type: it might be meant to keep the request here.
        raise ParameterError(None, "the message has a field that is not known here", "unknown_parameter")
    return GenerationRequest(
        messages=tuple(Message(role=turn.role, content=turn.content) for turn in message.messages),
        sampling=_sampling(message.sampling),
        tags=tuple(message.privacy_tags),
        latency=_latency(message.latency),
        min_capability=message.min_capability,
        tenant=tenant,
        max_reach=_max_reach(message.max_reach),
    )


def decision(value: Decision) -> gateway_pb2.Decision:
    return gateway_pb2.Decision(
        decision_id=value.decision_id,
        lane=_LANES[value.lane],
        backend=value.backend,
        model=value.model,
        rule=value.rule,
        reasons=value.reasons,
        floor=_REACHES[value.floor],
        floor_steps=value.floor_steps,
        detections=value.detections,
        policy_hash=value.policy_hash,
        predicted_ttft=_duration(value.predicted_ttft_s),
        predicted_total=_duration(value.predicted_total_s),
        fallbacks=value.fallbacks,
    )


def completion(value: Completion) -> gateway_pb2.Completion:
    usage = None
    if value.prompt_tokens is not None and value.completion_tokens is not None:
        usage = common_pb2.Usage(prompt_tokens=value.prompt_tokens, completion_tokens=value.completion_tokens)
    timings = common_pb2.Timings(ttft=_duration(value.ttft_s), total=_duration(value.total_s))
    return gateway_pb2.Completion(
        finish_reason=_FINISH_REASONS[value.finish_reason],
        usage=usage,
        timings=timings,
        deviations=None if value.deviations is None else common_pb2.Deviations(**asdict(value.deviations)),
    )


def models(states: Iterable[BackendState]) -> gateway_pb2.ListModelsResponse:
    """Backends whose model is known."""
    return gateway_pb2.ListModelsResponse(
        models=[
            gateway_pb2.Model(id=state.model, lane=_LANES[state.lane], backend=state.name, available=state.available)
            for state in states
            if state.model
        ]
    )


def backend_status(state: BackendState) -> gateway_pb2.BackendStatus:
    return gateway_pb2.BackendStatus(
        backend=state.name,
        lane=_LANES[state.lane],
        reach=_REACHES[state.reach],
        available=state.available,
        model=state.model,
        cause=state.cause,
        queue_depth=state.queue_depth,
        prefill_tokens_per_second=state.prefill_tokens_per_second,
        decode_tokens_per_second=state.decode_tokens_per_second,
    )


def explanation(value: Explanation) -> gateway_pb2.ExplainResponse:
    return gateway_pb2.ExplainResponse(
        decision=None if value.decision is None else decision(value.decision),
        refusal=value.refusal,
        rules=[
            gateway_pb2.RuleTrace(rule=rule.rule, matched=rule.matched, condition=rule.condition, outcome=rule.outcome)
            for rule in value.rules
        ],
        backends=[
            gateway_pb2.BackendTrace(
                backend=trace.backend,
                lane=_LANES[trace.lane],
                reach=_REACHES[trace.reach],
                allowed=trace.allowed,
                reason=trace.reason,
            )
            for trace in value.backends
        ],
    )


def _sampling(message: common_pb2.Sampling) -> Sampling:
    return Sampling(
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        top_k=message.top_k if message.HasField("top_k") else None,
        min_p=message.min_p if message.HasField("min_p") else None,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
    )


def _latency(message: gateway_pb2.LatencyTolerance) -> LatencyTolerance:
    if message.latency_class not in _CLASSES:
        raise ParameterError("latency.latency_class", f"value {message.latency_class} is not known here")
    return LatencyTolerance(
        ttft_s=_seconds(message.ttft) if message.HasField("ttft") else None,
        total_s=_seconds(message.total) if message.HasField("total") else None,
        latency_class=_CLASSES[message.latency_class],
        strict=message.strict,
    )


def _has_unknown_field(message: ProtoMessage) -> bool:
    if len(UnknownFieldSet(message)):
        return True
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = [value] if isinstance(value, ProtoMessage) else value
            if any(map(_has_unknown_field, parts)):
                return True
    return False


def _max_reach(value: int) -> Reach | None:
    if value == common_pb2.REACH_UNSPECIFIED:
        return None
    try:
        return Reach(value)
    except ValueError:
        # A reach that this version does not know might be meant as a strict one.
        raise ParameterError("max_reach", f"value {value} is not known here") from None


def _seconds(message: duration_pb2.Duration) -> float:
    return float(message.seconds) + message.nanos / 1e9


def _duration(seconds: float | None) -> duration_pb2.Duration | None:
    if seconds is None:
        return None
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=round((seconds - whole) * 1e9) % 1_000_000_000)
