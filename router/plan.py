"""What a decision is: where a request may be sent, in order and why, or why nowhere. Holds no content."""

from dataclasses import dataclass

from router.policy.policy import RuleTrace
from router.privacy.floor import Floor
from router.privacy.reach import Reach
from router.request import Lane


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that may answer, at its place in the order they are tried."""

    backend: str
    lane: Lane
    reach: Reach
    model: str
    # Why it would be the one to answer, the deciding reason first. Never empty.
    reasons: tuple[str, ...]
    # None while its rates are unknown; never known of a cloud.
    predicted_ttft_s: float | None
    predicted_total_s: float | None


@dataclass(frozen=True, slots=True)
class BackendTrace:
    """A backend and why it is tried at its place, or not at all."""

    backend: str
    lane: Lane
    reach: Reach
    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to send a request. `floor` is the one that permits are minted with: evaluating the policy may have
    tightened the one passed in."""

    candidates: tuple[Candidate, ...]
    rule: str
    floor: Floor
    policy_hash: str
    rules: tuple[RuleTrace, ...]
    backends: tuple[BackendTrace, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing may or can answer. `reason` is from a closed set, `message` for the caller."""

    reason: str
    message: str
    # The same request may succeed later: a lane is down or too slow now.
    can_retry: bool
    rule: str
    floor: Floor
    policy_hash: str
    rules: tuple[RuleTrace, ...]
    backends: tuple[BackendTrace, ...]
