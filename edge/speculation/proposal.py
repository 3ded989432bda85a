"""Tokens guessed to follow a sequence's last one, from the pass that computes them to the last that was right."""

from collections.abc import Sequence

from edge.speculation.savepoint import Savepoint
from edge.state import SequenceState


class Proposal:
    """Guesses for one pass. The state's length counts those that turned out right, and no others."""

    def __init__(self, state: SequenceState, tokens: Sequence[int]) -> None:
        """`state` lacks one token that is known, and then these, for each of which it has a spare."""
        self.tokens = tuple(tokens)
        self.num_accepted = 0
        self._state = state
        self.savepoints = [
            Savepoint(state, state.length + 1 + number, spare)
            for number, (_, spare) in enumerate(zip(self.tokens, state.spares, strict=False))
        ]
        if len(self.savepoints) < len(self.tokens):
            raise ValueError(f"{len(self.tokens)} guesses, but room to take back {len(state.spares)}")

    def accepts(self, token: int) -> bool:
        """Whether `token`, which follows what the state counts, was guessed there: the state then counts it, too."""
        if self.num_accepted == len(self.tokens) or self.tokens[self.num_accepted] != token:
            return False
        self.num_accepted += 1
        self._state.length += 1
        return True

    def settle(self) -> None:
        """Nothing more will be accepted: take back what was computed of the other guesses."""
        if self.num_accepted < len(self.tokens):
            self.savepoints[self.num_accepted].restore()
