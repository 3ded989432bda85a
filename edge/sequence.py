"""One request from its arrival to its end: what is still to be computed, what is drawn, its counters."""

import time
from array import array
from collections.abc import Sequence as Ids
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.batch import Segment
from edge.config import ModelConfig
from edge.events import GenerationStats
from edge.experts.store import StoreStats
from edge.prefix.store import Visit
from edge.sampler import Sampling
from edge.speculation.drafter import DraftRequest
from edge.speculation.proposal import Proposal
from edge.state import SequenceState


class Reads(NamedTuple):
    """What the expert store counted."""

    lookups: int
    hits: int
    read_bytes: int
    disk_seconds: float

    @classmethod
    def between(cls, before: StoreStats, after: StoreStats) -> "Reads":
        """What was counted from one moment to another."""
        return cls(
            after.lookups - before.lookups,
            after.hits - before.hits,
            after.read_bytes - before.read_bytes,
            after.disk_seconds - before.disk_seconds,
        )

    def shared(self, rows: Ids[int]) -> "list[Reads]":
        """Divided in proportion to `rows`, whole numbers whole: the parts sum to what there was."""
        ends = list(accumulate(rows, initial=0))
        return [self._upto(end, ends[-1]) - self._upto(begin, ends[-1]) for begin, end in pairwise(ends)]

    def _upto(self, rows: int, all_rows: int) -> "Reads":
        lookups, hits, read_bytes = (count * rows // all_rows for count in self[:3])
        return Reads(lookups, hits, read_bytes, self.disk_seconds * rows / all_rows)

    def __sub__(self, other: "Reads") -> "Reads":
        return Reads(
            self.lookups - other.lookups,
            self.hits - other.hits,
            self.read_bytes - other.read_bytes,
            self.disk_seconds - other.disk_seconds,
        )


class Sequence:
    """A prompt and its completion."""

    def __init__(self, job: int, ids: Ids[int], sampling: Sampling, tenant: str) -> None:
        self.job = job
        self.ids = array("I", ids)  # the prompt, and after it the tokens drawn; 4 bytes each, of contexts of any length
        self.tenant = tenant
        self.stats = GenerationStats(len(ids))
        self._max_tokens = sampling.max_tokens
        self._sampler = sampling.sampler()
        self._submitted = time.perf_counter()
        self._state: SequenceState | None = None
        self._visit: Visit | None = None
        self._proposal: Proposal | None = None

    @property
    def state(self) -> SequenceState:
        """Its place in memory; RuntimeError while it has none."""
        if self._state is None:
            raise RuntimeError(f"job {self.job} has no place")
        return self._state

    @property
    def visit(self) -> Visit:
        """What it shares with other prompts; RuntimeError while it has no place."""
        if self._visit is None:
            raise RuntimeError(f"job {self.job} has no place")
        return self._visit

    def start(self, state: SequenceState, visit: Visit) -> None:
        """It has a place now, where the visit may have put the beginning of its prompt."""
        self._state, self._visit = state, visit
        self.stats.reused_tokens = visit.reused_tokens

    def end(self) -> SequenceState | None:
        """It has ended: the place that it leaves, if it had one."""
        if self._visit is not None:
            self._visit.end()
        state, self._state = self._state, None
        return state

    def segment(self, num_tokens: int, proposal: Proposal | None = None) -> Segment:
        """The next tokens to be computed, and behind the last of all what is guessed to follow it."""
        begin = self.state.length
        end = begin + num_tokens
        captures = self.visit.captures(end)
        self._proposal = proposal
        if proposal is None:
            return Segment(self.ids[begin:end], self.state, captures)
        ids = (*self.ids[begin:end], *proposal.tokens)
        return Segment(ids, self.state, [*captures, *proposal.savepoints], len(proposal.tokens))

    def draft_request(self) -> DraftRequest:
        """Of a sequence that decodes: guesses beyond its last token or its room are of no use."""
        limit = min(self._max_tokens - self.stats.completion_tokens, self.state.capacity - self.state.length)
        return DraftRequest(self.state, self.ids[-1], limit - 1)

    def accepts(self, token: int) -> bool:
        """Whether the token just drawn had been guessed, so that the next one can be drawn from the same pass."""
        return self._proposal is not None and self._proposal.accepts(token)

    def settle(self) -> Proposal | None:
        """All that the pass brings was drawn: take back what was computed of wrong guesses. What had been guessed."""
        proposal, self._proposal = self._proposal, None
        if proposal is not None:
            proposal.settle()
            self.stats.drafted_tokens += len(proposal.tokens)
            self.stats.accepted_tokens += proposal.num_accepted
        return proposal

    @property
    def is_computed(self) -> bool:
        """Whether every token has gone through the model, so that the next one can be drawn."""
        return self.state.length == len(self.ids)

    def draw(self, logits: NDArray[np.float32], config: ModelConfig) -> int | None:
        """The next token, now one of `ids`; None if it is an end-of-sequence token. Sets `stats.finish_reason`."""
        stats = self.stats
        token = self._sampler.draw(logits)
        if not stats.ttft_seconds:
            stats.ttft_seconds = time.perf_counter() - self._submitted
        if token in config.eos_token_ids:
            stats.finish_reason = "stop"
            return None
        self.ids.append(token)
        stats.completion_tokens += 1
        if stats.completion_tokens == self._max_tokens or self.state.length == self.state.capacity:
            stats.finish_reason = "length"
        return token

    def count_pass(self, seconds: float, share: Reads, *, is_prompt: bool) -> None:
        """A pass with rows of this sequence took so long; `share` of its reads is put down to it."""
        stats = self.stats
        if is_prompt:
            stats.prefill_seconds += seconds
        else:
            stats.decode_seconds += seconds
        stats.expert_hits += share.hits
        stats.expert_lookups += share.lookups
        stats.expert_read_bytes += share.read_bytes
        stats.disk_seconds += share.disk_seconds
