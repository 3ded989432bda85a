"""Which requests get a place, and what the next pass of the model computes. Values in, values out: no clock, no model.

Places and KV memory are given out in order of arrival. Each pass computes one token of every sequence that is decoding
and, if it is the prompts' turn, a chunk of prompt tokens beside them. A chunk is dealt out evenly among all prompts, so
that a short one never waits for a long one, and they share the reads of experts. While sequences decode, prompts get at
most half of the time: each pass with a chunk is followed by as much time of passes without.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass: who decodes, and how many tokens of whose prompt come with it."""

    decoding: tuple[int, ...] = ()
    prompts: dict[int, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.decoding or self.prompts)


@dataclass(slots=True)
class _Request:
    prompt_left: int  # tokens still to be computed
    kv_tokens: int  # the most it may come to hold


class Scheduler:
    """Jobs are named by numbers, distinct among those present."""

    def __init__(self, *, num_places: int, kv_tokens: int, chunk_tokens: int, shared_chunk_tokens: int) -> None:
        """`shared_chunk_tokens`: the most prompt tokens in a pass that also decodes."""
        self._num_places = num_places
        self._free_kv_tokens = kv_tokens
        self._chunk_tokens = chunk_tokens
        self._shared_chunk_tokens = shared_chunk_tokens
        self._waiting: deque[tuple[int, _Request]] = deque()
        self._running: dict[int, _Request] = {}
        self._owed_seconds = 0.0  # to those who decode, for passes that were long because of prompts

    @property
    def num_running(self) -> int:
        """How many have a place."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    def submit(self, job: int, prompt_tokens: int, kv_tokens: int) -> None:
        """A new request whose prompt and completion take at most `kv_tokens` of the pool."""
        self._waiting.append((job, _Request(prompt_tokens, kv_tokens)))

    def admit(self) -> list[int]:
        """Give places to those whose turn it is. Nobody overtakes: a large request is not starved by small ones."""
        admitted = []
        while self._waiting and len(self._running) < self._num_places:
            job, request = self._waiting[0]
            if request.kv_tokens > self._free_kv_tokens:
                break
            self._waiting.popleft()
            self._free_kv_tokens -= request.kv_tokens
            self._running[job] = request
            admitted.append(job)
        return admitted

    def remove(self, job: int) -> None:
        """The request has ended, or never began: its place and its memory are free."""
        request = self._running.pop(job, None)
        if request is not None:
            self._free_kv_tokens += request.kv_tokens
        else:
            self._waiting = deque(entry for entry in self._waiting if entry[0] != job)

    def advance(self, job: int, tokens: int) -> None:
        """So many tokens of the job's prompt are done."""
        self._running[job].prompt_left -= tokens

    def plan(self) -> Plan:
        """The next pass; empty if nobody has a place."""
        decoding = tuple(job for job, request in self._running.items() if not request.prompt_left)
        if decoding and self._owed_seconds > 0:
            return Plan(decoding)
        return Plan(decoding, self._deal(self._shared_chunk_tokens if decoding else self._chunk_tokens))

    def ran(self, plan: Plan, seconds: float) -> None:
        """The pass `plan` took so long."""
        if plan.prompts:
            self._owed_seconds = seconds if plan.decoding else 0.0
        else:
            self._owed_seconds -= seconds

    def _deal(self, tokens: int) -> dict[int, int]:
        """Share a chunk out among the prompts: what a short one does not need goes to the others."""
        needs = {job: request.prompt_left for job, request in self._running.items() if request.prompt_left}
        shares = dict.fromkeys(needs, 0)
        for num_served, job in enumerate(sorted(needs, key=needs.__getitem__)):
            shares[job] = min(needs[job], -(-tokens // (len(needs) - num_served)))
            tokens -= shares[job]
        return {job: share for job, share in shares.items() if share}
