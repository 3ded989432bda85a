"""What a backend is, whatever it speaks."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from router.privacy.permit import Permit
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, Lane

# Called with each new state of a backend.
StateObserver = Callable[[BackendState], None]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Deviations:
    """How far a backend that trades quality for speed departed from its model's own answer, as it says."""

    experts_per_token: int
    own_experts_per_token: int
    substitute: float  # the share of a token below which an expert was replaced; 0: none was
    chosen_experts: int
    substituted_experts: int
    router_weight_kept: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a whole answer. Token counts are None if the backend does not tell."""

    finish_reason: Literal["stop", "length"]
    prompt_tokens: int | None
    completion_tokens: int | None
    reused_tokens: int | None = None  # of the prompt, known to the backend from an earlier one
    deviations: Deviations | None = None  # None: none, or it does not tell


class Backend(Protocol):
    """A server that can answer. One instance serves all requests, in one event loop."""

    @property
    def name(self) -> str:
        """Configured name: unique, in decisions, logs and metrics."""

    @property
    def lane(self) -> Lane: ...

    @property
    def reach(self) -> Reach:
        """How far a request sent here travels."""

    def state(self) -> BackendState:
        """What is known now, without waiting."""

    def payload(self, request: GenerationRequest, request_id: str) -> bytes:
        """The exact bytes that `send` would put on the wire for `request`.

        They hold its messages and sampling, a model name and `request_id`: nothing about the caller, except that an
        edge is told the tenant. `request_id` is for the logs of both sides; towards a cloud it must be fresh and
        random.
        """

    def send(self, permit: Permit, payload: bytes) -> AsyncGenerator[TextDelta | Finished, None]:
        """Redeem `permit` for `payload`, send it, and stream the answer; ends with Finished.

        Raises: EgressDenied if the permit is not for these bytes and this backend; BackendError if the backend
        fails. Closing the iterator cancels the request at the backend at once.
        """

    async def start(self) -> None:
        """Begin to watch the backend's state; returns after the first look, whether it is up or not."""

    async def close(self) -> None: ...
