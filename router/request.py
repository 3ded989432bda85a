"""What a request is and what is known of the backends, as values: no wire types, no I/O."""

from dataclasses import dataclass, field
from typing import Literal

from router.privacy.reach import Reach

Lane = Literal["edge", "cloud"]
LatencyClass = Literal["interactive", "batch", "background"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Its content is never logged: it is kept out of `repr`."""

    role: str
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; None takes the answering model's own default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class LatencyTolerance:
    """What the caller tolerates. Bounds win over the class; None is no bound."""

    ttft_s: float | None = None
    total_s: float | None = None
    latency_class: LatencyClass | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request as it was accepted. `tenant` comes from credentials only."""

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    tags: tuple[str, ...] = ()
    latency: LatencyTolerance = LatencyTolerance()
    min_capability: str = ""
    tenant: str = "default"
    max_reach: Reach | None = None


@dataclass(frozen=True, slots=True)
class BackendState:
    """A backend as last seen. Rates are 0 before the first measurement.

    steps_until_place: tokens that each running request draws before a new one would start. decode_tokens_per_second:
    of one request, beside as many others as there were lately. A prompt takes prompt_base_s and its tokens' time.
    """

    name: str
    lane: Lane
    reach: Reach
    available: bool
    model: str = ""
    cause: str = ""
    capability: str = ""
    queue_depth: int = 0
    queue_limit: int = 0
    running: int = 0
    context_tokens: int = 0
    pending_prompt_tokens: int = 0
    steps_until_place: int = 0
    prefill_tokens_per_second: float = 0.0
    prompt_base_s: float = 0.0
    decode_tokens_per_second: float = 0.0
    prompt_bytes_per_token: float = 0.0
