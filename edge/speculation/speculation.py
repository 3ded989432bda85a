"""Decides pass by pass who gets guesses, and counts what became of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.batch import Batch
from edge.speculation.drafter import Drafter, DraftRequest
from edge.speculation.proposal import Proposal
from edge.state import SequenceState


class Gate(Protocol):
    """Says whether guessing pays: edge.speculation.gate.CostGate has the contract."""

    def wants(self, num_sequences: int) -> bool:
        """Whether so many sequences should have guesses."""

    def took(self, num_sequences: int, tokens: int, seconds: float, *, is_drafted: bool) -> None:
        """What came of a pass that only decoded."""


class AlwaysOpen:
    """For measurements and tests: guesses whatever it costs."""

    def wants(self, num_sequences: int) -> bool:  # noqa: ARG002
        """Yes."""
        return True

    def took(self, num_sequences: int, tokens: int, seconds: float, *, is_drafted: bool) -> None:
        """Nothing is learned."""


@dataclass(frozen=True, slots=True)
class SpeculationStats:
    """Since the engine was loaded."""

    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def acceptance(self) -> float:
        """Share of the guesses that were right; 0 before the first."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0


NOTHING_DRAFTED = SpeculationStats()


class Speculation:
    """One for an engine. `depth`: the most guesses for a sequence in a pass."""

    def __init__(self, drafter: Drafter, gate: Gate, depth: int) -> None:
        self._drafter = drafter
        self._gate = gate
        self._depth = depth
        self.stats = NOTHING_DRAFTED

    def propose(self, requests: Sequence[DraftRequest]) -> list[Proposal | None]:
        """Guesses for all sequences that decode in the next pass, or for none; None where there is no guess."""
        if not requests or not self._gate.wants(len(requests)):
            return [None] * len(requests)
        drafts = self._drafter.draft(
            [DraftRequest(asked.state, asked.token, min(asked.most, self._depth)) for asked in requests]
        )
        return [
            Proposal(asked.state, tokens) if tokens else None for asked, tokens in zip(requests, drafts, strict=True)
        ]

    def follow(self, batch: Batch) -> None:
        """See Drafter."""
        self._drafter.follow(batch)

    def catch_up(self, state: SequenceState) -> None:
        """See Drafter."""
        self._drafter.catch_up([state])

    def checked(self, proposals: Sequence[Proposal | None]) -> None:
        """A pass is over: count its guesses."""
        made = [proposal for proposal in proposals if proposal]
        self.stats = SpeculationStats(
            self.stats.drafted_tokens + sum(len(proposal.tokens) for proposal in made),
            self.stats.accepted_tokens + sum(proposal.num_accepted for proposal in made),
        )

    def took(self, num_sequences: int, tokens: int, seconds: float, *, is_drafted: bool) -> None:
        """See Gate."""
        self._gate.took(num_sequences, tokens, seconds, is_drafted=is_drafted)
