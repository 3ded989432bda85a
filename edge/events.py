"""What `Engine.step` tells of the requests in the engine."""

from dataclasses import dataclass

from edge.deviation import NOT_COUNTED, RoutingCounts
from edge.errors import EdgeError


@dataclass(slots=True)
class GenerationStats:
    """One request so far, or the whole of it once it has ended.

    A pass of the model serves many requests at once. Its time counts in full for each of them: it is what they waited
    for. Its look-ups of experts, hits, bytes and disk time are shared out by the rows that each had in it, so that the
    sums over requests are the engine's totals.
    """

    prompt_tokens: int
    reused_tokens: int = 0  # of the prompt, known from an earlier one
    completion_tokens: int = 0
    finish_reason: str = ""  # "stop" or "length"; empty while running or after an error
    prefill_seconds: float = 0.0  # of the passes that held tokens of the prompt
    decode_seconds: float = 0.0  # of the passes after those
    ttft_seconds: float = 0.0  # from submit to the first token, waiting for a place included
    expert_hits: int = 0
    expert_lookups: int = 0
    expert_read_bytes: int = 0
    disk_seconds: float = 0.0
    drafted_tokens: int = 0  # guessed, and computed together with those before them
    accepted_tokens: int = 0  # of these, the ones that were right, so that the next token came with the same pass
    routing: RoutingCounts = NOT_COUNTED  # of its own rows; all zero unless something may deviate


@dataclass(frozen=True, slots=True)
class Started:
    """The request has a place; its prompt comes next."""

    job: int


@dataclass(frozen=True, slots=True)
class Token:
    """One more token of the completion."""

    job: int
    token: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The completion has ended: by an end-of-sequence token ("stop", the token is not told) or its limit ("length")."""

    job: int
    reason: str
    stats: GenerationStats


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ends without a result: CancelledError, StorageError, PackError."""

    job: int
    error: EdgeError


Event = Started | Token | Finished | Failed
