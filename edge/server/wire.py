"""From our values to the messages of EdgeService."""

from collections.abc import Sequence

from flashgate.v1 import common_pb2, edge_pb2
from google.protobuf.duration_pb2 import Duration

from edge.deviation import Deviation, RoutingCounts
from edge.server.pipe import Worked
from edge.server.status import NodeState, NodeStatus

_FINISH_REASONS = {
    "stop": common_pb2.FinishReason.FINISH_REASON_STOP,
    "length": common_pb2.FinishReason.FINISH_REASON_LENGTH,
}
_STATES = {
    NodeState.LOADING: edge_pb2.EngineState.ENGINE_STATE_LOADING,
    NodeState.READY: edge_pb2.EngineState.ENGINE_STATE_READY,
    NodeState.RESTARTING: edge_pb2.EngineState.ENGINE_STATE_RESTARTING,
    NodeState.DRAINING: edge_pb2.EngineState.ENGINE_STATE_DRAINING,
    NodeState.FAILED: edge_pb2.EngineState.ENGINE_STATE_FAILED,
}


def started(model: str, prompt_tokens: int, weight_bits: float) -> edge_pb2.EdgeServiceGenerateResponse:
    event = edge_pb2.EdgeStarted(model=model, prompt_tokens=prompt_tokens, weight_bits=weight_bits)
    return edge_pb2.EdgeServiceGenerateResponse(started=event)


def tokens(ids: Sequence[int], text: str) -> edge_pb2.EdgeServiceGenerateResponse:
    return edge_pb2.EdgeServiceGenerateResponse(tokens=edge_pb2.EdgeTokens(ids=ids, text=text))


def finished(
    reason: str,
    *,
    prompt_tokens: int,
    completion_tokens: int,
    queue_s: float,
    ttft_s: float,
    total_s: float,
    worked: Worked,
    deviation: Deviation | None,
) -> edge_pb2.EdgeServiceGenerateResponse:
    event = edge_pb2.EdgeFinished(
        finish_reason=_FINISH_REASONS[reason],
        usage=common_pb2.Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens),
        timings=common_pb2.Timings(queue=duration(queue_s), ttft=duration(ttft_s), total=duration(total_s)),
        expert_cache_hits=worked.expert_hits,
        expert_cache_lookups=worked.expert_lookups,
        expert_read_bytes=worked.expert_read_bytes,
        reused_prompt_tokens=worked.reused_tokens,
        drafted_tokens=worked.drafted_tokens,
        accepted_tokens=worked.accepted_tokens,
        deviations=deviations(deviation, worked.routing),
    )
    return edge_pb2.EdgeServiceGenerateResponse(finished=event)


def status_response(status: NodeStatus) -> edge_pb2.EdgeServiceGetStatusResponse:
    return edge_pb2.EdgeServiceGetStatusResponse(
        model=status.model,
        engine_state=_STATES[status.state],
        engine_error=status.error,
        context_tokens=status.context_tokens,
        queue_depth=status.queue_depth,
        queue_limit=status.queue_limit,
        running=status.running,
        running_limit=status.running_limit,
        steps_until_place=status.steps_until_place,
        pending_prompt_tokens=status.pending_prompt_tokens,
        pending_completion_tokens=status.pending_completion_tokens,
        prefill_tokens_per_second=status.prefill_tokens_per_second,
        prompt_base=duration(status.prompt_base_s),
        decode_tokens_per_second=status.decode_tokens_per_second,
        total_decode_tokens_per_second=status.total_decode_tokens_per_second,
        batch_size=status.batch_size,
        prompt_reuse_rate=status.prompt_reuse_rate,
        prompt_bytes_per_token=status.prompt_bytes_per_token,
        expert_cache_hit_rate=status.expert_cache_hit_rate,
        disk_read_bytes_per_second=status.disk_read_bytes_per_second,
        memory_bytes=status.memory_bytes,
        memory_budget_bytes=status.memory_budget_bytes,
        temperature_celsius=status.temperature_celsius,
        battery_fraction=status.power.battery_fraction,
        on_battery=status.power.on_battery,
        uptime=duration(status.uptime_s),
        engine_restarts=status.engine_restarts,
        weight_bits=status.weight_bits,
        deviations=deviations(status.deviation, status.routing),
    )


def deviations(deviation: Deviation | None, counts: RoutingCounts) -> common_pb2.Deviations | None:
    """None, and so unset, where nothing may deviate."""
    if deviation is None:
        return None
    return common_pb2.Deviations(
        experts_per_token=deviation.experts,
        own_experts_per_token=deviation.own_experts,
        substitute=deviation.substitute or 0.0,
        chosen_experts=counts.routings * deviation.experts,
        substituted_experts=counts.substituted,
        router_weight_kept=counts.mean_weight_kept,
    )


def duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
