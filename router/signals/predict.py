"""Predicts when a backend would answer, from its live state. Pure."""

import math
from dataclasses import dataclass, replace
from typing import Final

from router.request import BackendState

# UTF-8 bytes per prompt token until the backend has measured its own; English text has about four.
DEFAULT_BYTES_PER_TOKEN: Final = 4.0

# Tokens that a request without a bound is expected to take: the edge's own default for `max_tokens`.
DEFAULT_MAX_TOKENS: Final = 256


# What an edge is taken for until it has measured itself: one that reads each token's experts from its disk (10 of 7 MB
# in each of 60 layers, 4 GB in all, from a drive of 4 GB/s), and shares them over a prompt's chunk. Pessimistic, so
# that a tight bound is not risked; yet an edge that is asked with some patience gets to measure.
ASSUMED_PREFILL_TOKENS_PER_SECOND: Final = 20.0
ASSUMED_DECODE_TOKENS_PER_SECOND: Final = 1.0

# A token in eleven days: nothing that was measured.
_LEAST_RATE: Final = 1e-6
# Thirty years, whatever a server makes us count with: it is enough to be late, and fits into any duration.
_LONGEST_S: Final = 1e9


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds from now; None while a rate is unknown. `total_s` assumes that all `max_tokens` come."""

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
    """First the steps until a place is free, then the prompts of all accepted requests, then this one's, then one step.

    The answers that run beside it are in the rate: it is one sequence's, as it was lately.
    """
    prefill, decode = state.prefill_tokens_per_second, state.decode_tokens_per_second
    if not (_is_rate(prefill) and _is_rate(decode)):
        return Prediction(None, None)
    queue_s = state.steps_until_place / decode + state.pending_prompt_tokens / prefill
    ttft_s = queue_s + max(0.0, state.prompt_base_s) + num_prompt_tokens / prefill + 1 / decode
    total_s = ttft_s + (max_tokens - 1) / decode
    return Prediction(min(ttft_s, _LONGEST_S), min(total_s, _LONGEST_S))


def expect(state: BackendState, num_prompt_tokens: int, max_tokens: int) -> Prediction:
    """The same with assumed rates for unknown ones; good for choosing, not for telling anybody."""
    prefill, decode = state.prefill_tokens_per_second, state.decode_tokens_per_second
    assumed = replace(
        state,
        prefill_tokens_per_second=prefill if _is_rate(prefill) else ASSUMED_PREFILL_TOKENS_PER_SECOND,
        decode_tokens_per_second=decode if _is_rate(decode) else ASSUMED_DECODE_TOKENS_PER_SECOND,
    )
    return predict(assumed, num_prompt_tokens, max_tokens)


def _holds(bound_s: float | None, predicted_s: float | None) -> bool:
    return bound_s is None or (predicted_s is not None and predicted_s <= bound_s)


def _is_rate(value: float) -> bool:
    """A measured rate: servers report 0 before the first measurement."""
    return _LEAST_RATE <= value < math.inf
