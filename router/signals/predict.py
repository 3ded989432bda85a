"""Predicts when a backend would answer, from its live state. Pure."""

import math
from dataclasses import dataclass
from typing import Final

from router.request import BackendState

# UTF-8 bytes per prompt token until the backend has measured its own; English text has about four.
DEFAULT_BYTES_PER_TOKEN: Final = 4.0

# Tokens that a request without a bound is expected to take: the edge's own default for `max_tokens`.
DEFAULT_MAX_TOKENS: Final = 256


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds from now; None while a rate that it needs is unknown. `total_s` assumes that all `max_tokens` come."""

    ttft_s: float | None
    total_s: float | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a caller tolerates, in seconds; None is no bound."""

    ttft_s: float | None = None
    total_s: float | None = None

    def hold(self, prediction: Prediction) -> bool:
        """Whether the prediction promises both. What is unknown promises nothing."""
        return _holds(self.ttft_s, prediction.ttft_s) and _holds(self.total_s, prediction.total_s)


def prompt_tokens(prompt_bytes: int, state: BackendState) -> int:
    """Estimated tokens of a prompt on this backend, rounded up."""
    bytes_per_token = state.prompt_bytes_per_token
    return math.ceil(prompt_bytes / (bytes_per_token if _is_rate(bytes_per_token) else DEFAULT_BYTES_PER_TOKEN))


def predict(state: BackendState, num_prompt_tokens: int, max_tokens: int) -> Prediction:
    """The queue first (prompts and completions of all accepted requests), then this prompt, then one decode step."""
    prefill, decode = state.prefill_tokens_per_second, state.decode_tokens_per_second
    if not (_is_rate(prefill) and _is_rate(decode)):
        return Prediction(None, None)
    queue_s = state.pending_prompt_tokens / prefill + state.pending_completion_tokens / decode
    ttft_s = queue_s + num_prompt_tokens / prefill + 1 / decode
    return Prediction(ttft_s, ttft_s + (max_tokens - 1) / decode)


def _holds(bound_s: float | None, predicted_s: float | None) -> bool:
    return bound_s is None or (predicted_s is not None and predicted_s <= bound_s)


def _is_rate(value: float) -> bool:
    """A measured rate: servers report 0 before the first measurement."""
    return math.isfinite(value) and value > 0
