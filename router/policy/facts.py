"""What a policy's conditions can ask about: the variables, their types, and where each value comes from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cel_expr_python import cel

from router.privacy.floor import Floor
from router.privacy.reach import Reach
from router.privacy.tags import normalise
from router.request import BackendState, GenerationRequest, Lane
from router.signals.predict import Bounds, Prediction

# What an unset bound and an unknown prediction count as, so that `latency.ttft_ms < 1000` is false without a bound
# and `edge.predicted_ttft_ms > 5000` true without a measurement. About 11 days.
UNBOUNDED_MS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """A lane as conditions see it: its first available backend, else its first."""

    state: BackendState
    prediction: Prediction
    is_in_time: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a policy may look at for one request."""

    request: GenerationRequest
    num_messages: int
    prompt_tokens: int
    max_tokens: int
    bounds: Bounds
    floor: Floor
    edge: LaneFacts
    cloud: LaneFacts


@dataclass(frozen=True, slots=True)
class Variable:
    """One name that conditions may use."""

    name: str
    type: cel.Type
    meaning: str
    value: Callable[[Facts], object]


def absent_lane(lane: Lane) -> LaneFacts:
    """The facts of a lane that has no backend."""
    state = BackendState(name="", lane=lane, reach=Reach.CLOUD, available=False)
    return LaneFacts(state, Prediction(None, None), is_in_time=False)


def _milliseconds(seconds: float | None) -> int:
    return UNBOUNDED_MS if seconds is None else min(UNBOUNDED_MS, round(seconds * 1000))


def _lane_variables(lane: Lane, of: Callable[[Facts], LaneFacts]) -> tuple[Variable, ...]:
    return (
        Variable(f"{lane}.available", cel.Type.BOOL, "it can take requests", lambda f: of(f).state.available),
        Variable(f"{lane}.capability", cel.Type.STRING, "its capability class", lambda f: of(f).state.capability),
        Variable(f"{lane}.in_time", cel.Type.BOOL, "within the latency bounds", lambda f: of(f).is_in_time),
        Variable(f"{lane}.model", cel.Type.STRING, "the model it serves", lambda f: of(f).state.model),
        Variable(
            f"{lane}.predicted_ttft_ms",
            cel.Type.INT,
            f"predicted time to first token; {UNBOUNDED_MS} if unknown",
            lambda f: _milliseconds(of(f).prediction.ttft_s),
        ),
        Variable(
            f"{lane}.predicted_total_ms",
            cel.Type.INT,
            f"predicted time to the last token; {UNBOUNDED_MS} if unknown",
            lambda f: _milliseconds(of(f).prediction.total_s),
        ),
        Variable(
            f"{lane}.prefill_tokens_per_second",
            cel.Type.DOUBLE,
            "0.0 until measured",
            lambda f: float(of(f).state.prefill_tokens_per_second),
        ),
        Variable(
            f"{lane}.decode_tokens_per_second",
            cel.Type.DOUBLE,
            "0.0 until measured",
            lambda f: float(of(f).state.decode_tokens_per_second),
        ),
        Variable(f"{lane}.queue_depth", cel.Type.INT, "requests waiting", lambda f: of(f).state.queue_depth),
        Variable(f"{lane}.queue_limit", cel.Type.INT, "most that may wait", lambda f: of(f).state.queue_limit),
        Variable(f"{lane}.running", cel.Type.INT, "requests running", lambda f: of(f).state.running),
    )


VARIABLES: Final[tuple[Variable, ...]] = (
    Variable(
        "request.tags",
        cel.Type.List(cel.Type.STRING),
        "privacy tags, in lower case",
        lambda f: [normalise(tag) for tag in f.request.tags],
    ),
    Variable("request.tenant", cel.Type.STRING, "from the credentials", lambda f: f.request.tenant),
    Variable("request.prompt_tokens", cel.Type.INT, "estimated from its bytes", lambda f: f.prompt_tokens),
    Variable("request.max_tokens", cel.Type.INT, "most tokens to generate", lambda f: f.max_tokens),
    Variable("request.num_messages", cel.Type.INT, "turns of the conversation", lambda f: f.num_messages),
    Variable("request.min_capability", cel.Type.STRING, '"" for any', lambda f: f.request.min_capability),
    Variable(
        "latency.ttft_ms",
        cel.Type.INT,
        f"bound of the first token, from the request or its class; {UNBOUNDED_MS} for none",
        lambda f: _milliseconds(f.bounds.ttft_s),
    ),
    Variable(
        "latency.total_ms",
        cel.Type.INT,
        f"bound of the whole answer; {UNBOUNDED_MS} for none",
        lambda f: _milliseconds(f.bounds.total_s),
    ),
    Variable("latency.class", cel.Type.STRING, '"" for none', lambda f: f.request.latency.latency_class or ""),
    Variable("latency.strict", cel.Type.BOOL, "refuse rather than be late", lambda f: f.request.latency.strict),
    Variable("detections", cel.Type.List(cel.Type.STRING), "kinds found", lambda f: list(f.floor.detections)),
    Variable("floor", cel.Type.STRING, "device, fleet, cloud_masked or cloud", lambda f: f.floor.reach.label),
    *_lane_variables("edge", lambda f: f.edge),
    *_lane_variables("cloud", lambda f: f.cloud),
)
