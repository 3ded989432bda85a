"""A loaded policy."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """One rule against one request. Outcome: "true", "false", "error: …", "not reached"."""

    rule: str
    matched: bool
    condition: str
    outcome: str


class Policy:
    """Placeholder."""
