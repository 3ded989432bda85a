"""What one request is answered with, whatever protocol carries it: a decision, text, a completion."""

from dataclasses import dataclass
from typing import Literal

from router.backends.backend import Deviations
from router.privacy.reach import Reach
from router.request import Lane


@dataclass(frozen=True, slots=True)
class Decision:
    """The route of one request and why. Holds no content."""

    decision_id: str
    lane: Lane
    backend: str
    model: str
    rule: str
    # The deciding one first.
    reasons: tuple[str, ...]
    floor: Reach
    floor_steps: tuple[str, ...]
    # Kinds, never values.
    detections: tuple[str, ...]
    policy_hash: str
    predicted_ttft_s: float | None
    predicted_total_s: float | None
    # Backends that failed before this one, each as "backend: cause".
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of a whole answer. Times run from the request's arrival; token counts are None if nobody counted."""

    finish_reason: Literal["stop", "length"]
    prompt_tokens: int | None
    completion_tokens: int | None
    ttft_s: float
    total_s: float
    reused_tokens: int | None = None  # of the prompt, known to the backend from an earlier one
    deviations: Deviations | None = None  # from the model's own answer; None: none, or the backend does not tell
