"""Writes decisions, text and completions as the OpenAI API documents them, with our own facts beside. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from urllib.parse import quote

from router.backends.backend import TextDelta
from router.gateway.answer import Completion, Decision

Json = dict[str, object]


def route_headers(decision: Decision) -> dict[str, str]:
    """Response headers that say where and why. Names from configuration are percent-encoded where not ASCII."""
    headers = {
        "x-flashgate-lane": decision.lane,
        "x-flashgate-backend": _header(decision.backend),
        "x-flashgate-model": _header(decision.model),
        "x-flashgate-rule": _header(decision.rule),
        "x-flashgate-reasons": ",".join(map(_header, decision.reasons)),
        "x-flashgate-floor": decision.floor.label,
        "x-flashgate-policy": _header(decision.policy_hash),
        "x-flashgate-decision-id": decision.decision_id,
    }
    if decision.predicted_ttft_s is not None:
        headers["x-flashgate-predicted-ttft-ms"] = f"{decision.predicted_ttft_s * 1000:.0f}"
    if decision.fallbacks:
        headers["x-flashgate-fallbacks"] = ",".join(map(_header, decision.fallbacks))
    return headers


def whole(decision: Decision, created: int, text: str, end: Completion) -> Json:
    """The answer in one piece."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": end.finish_reason,
    }
    head = _head("chat.completion", decision, created)
    return {**head, "choices": [choice], "usage": _usage(end), "flashgate": route(decision, end)}


class ChunkWriter:
    """Writes one streamed answer's chunks."""

    def __init__(self, decision: Decision, created: int, include_usage: bool) -> None:
        self._decision = decision
        self._head = _head("chat.completion.chunk", decision, created)
        self._include_usage = include_usage

    def first(self) -> Json:
        """Names the role, before any text."""
        return self._chunk([_choice({"role": "assistant", "content": ""}, None)])

    def text(self, delta: TextDelta) -> Json:
        return self._chunk([_choice({"content": delta.text}, None)])

    def last(self, end: Completion) -> list[Json]:
        """The end with its reason and our facts, then the usage if it was asked for."""
        chunks = [{**self._chunk([_choice({}, end.finish_reason)]), "flashgate": route(self._decision, end)}]
        if self._include_usage:
            chunks.append({**self._head, "choices": [], "usage": _usage(end)})
        return chunks

    def _chunk(self, choices: Sequence[Json]) -> Json:
        # With include_usage every chunk has the key, null until the last.
        return {**self._head, "choices": choices, **({"usage": None} if self._include_usage else {})}


def route(decision: Decision, end: Completion) -> Json:
    """The `flashgate` object beside an answer."""
    return {
        "decision_id": decision.decision_id,
        "lane": decision.lane,
        "backend": decision.backend,
        "model": decision.model,
        "rule": decision.rule,
        "reasons": decision.reasons,
        "floor": decision.floor.label,
        "floor_steps": decision.floor_steps,
        "detections": decision.detections,
        "policy_hash": decision.policy_hash,
        "fallbacks": decision.fallbacks,
        "predicted_ttft_ms": _milliseconds(decision.predicted_ttft_s),
        "predicted_total_ms": _milliseconds(decision.predicted_total_s),
        "ttft_ms": _milliseconds(end.ttft_s),
        "total_ms": _milliseconds(end.total_s),
        "deviations": None if end.deviations is None else asdict(end.deviations),
    }


def error(message: str, error_type: str, code: str | None, param: str | None = None, **more: object) -> Json:
    return {"error": {"message": message, "type": error_type, "param": param, "code": code, **more}}


def model_list(models: Sequence[Mapping[str, object]]) -> Json:
    return {"object": "list", "data": list(models)}


def _head(kind: str, decision: Decision, created: int) -> Json:
    return {"id": f"chatcmpl-{decision.decision_id}", "object": kind, "created": created, "model": decision.model}


def _choice(delta: Mapping[str, str], finish_reason: str | None) -> Json:
    return {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish_reason}


def _usage(end: Completion) -> Json | None:
    if end.prompt_tokens is None or end.completion_tokens is None:
        return None
    usage: Json = {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }
    if end.reused_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": end.reused_tokens}
    return usage


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _header(value: str) -> str:
    """ASCII without the comma that separates values, control characters or a line end."""
    return quote(value, safe=" !#$&'()*+-./:;<=>?@[]^_`{|}~")
