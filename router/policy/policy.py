"""A loaded policy: rules that choose below the privacy floor. Immutable; evaluated as a pure function."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from router.policy.condition import Condition, Scene
from router.policy.facts import Facts
from router.privacy.floor import PrivacyRules
from router.request import Lane, LatencyTolerance
from router.signals.predict import Bounds

Preference = Literal["edge", "cloud", "edge_only", "cloud_only"]

# The rule name of a request that no rule matched.
DEFAULT_RULE: Final = "default"

# The reason of a decision by a rule that could not be evaluated.
POLICY_ERROR: Final = "policy_error"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which lane to prefer, and why."""

    prefer: Preference
    reason: str

    @property
    def lane(self) -> Lane:
        return "edge" if self.prefer in ("edge", "edge_only") else "cloud"

    def allows(self, lane: Lane) -> bool:
        """`edge_only` and `cloud_only` rule the other lane out, as a fallback too."""
        return self.lane == lane or self.prefer in ("edge", "cloud")


@dataclass(frozen=True, slots=True)
class Rule:
    """Applies its choice to requests that meet its condition."""

    name: str
    condition: Condition
    choice: Choice


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """One rule against one request. Outcome: "true", "false", "error: …", "not reached"."""

    rule: str
    matched: bool
    condition: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says about one request. `has_failed`: a condition had no value, so the cloud is forbidden."""

    rule: str
    choice: Choice
    has_failed: bool
    traces: tuple[RuleTrace, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """`digest`: SHA-256 of the file's content, in hex; comments and layout do not count."""

    source: str
    digest: str
    privacy: PrivacyRules
    capabilities: tuple[str, ...]
    latency_classes: Mapping[str, Bounds]
    rules: tuple[Rule, ...]
    default: Choice

    @property
    def hash(self) -> str:
        """The digest's short form, for people, metrics and decisions."""
        return f"sha256:{self.digest[:12]}"

    def bounds(self, latency: LatencyTolerance) -> Bounds:
        """A request's own bounds; where it gives none, those of its class."""
        of_class = self.latency_classes.get(latency.latency_class or "", Bounds())
        return Bounds(
            ttft_s=of_class.ttft_s if latency.ttft_s is None else latency.ttft_s,
            total_s=of_class.total_s if latency.total_s is None else latency.total_s,
        )

    def is_capable(self, capability: str, minimum: str) -> bool:
        """Whether class `capability` is at least `minimum`; an unknown class is at least nothing."""
        if not minimum:
            return True
        if capability not in self.capabilities or minimum not in self.capabilities:
            return False
        return self.capabilities.index(capability) >= self.capabilities.index(minimum)

    def evaluate(self, facts: Facts) -> Verdict:
        """The first rule that matches; a rule whose condition fails counts as matched, and closes the cloud."""
        scene = Scene(facts)
        traces: list[RuleTrace] = []
        for rule in self.rules:
            outcome = rule.condition.evaluate(scene)
            traces.append(_trace(rule, outcome))
            if outcome is not False:
                failed = outcome is not True
                choice = Choice("edge_only", POLICY_ERROR) if failed else rule.choice
                rest = self._not_reached(len(traces))
                return Verdict(rule.name, choice, failed, (*traces, *rest))
        return Verdict(DEFAULT_RULE, self.default, has_failed=False, traces=tuple(traces))

    def _not_reached(self, start: int) -> Iterator[RuleTrace]:
        for rule in self.rules[start:]:
            yield RuleTrace(rule.name, matched=False, condition=rule.condition.source, outcome="not reached")


def _trace(rule: Rule, outcome: bool | str) -> RuleTrace:
    text = f"error: {outcome}" if isinstance(outcome, str) else str(outcome).lower()
    return RuleTrace(rule.name, outcome is not False, rule.condition.source, text)
