"""Replays a trace of expert accesses against cache policies, and against the best that any policy could do."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edge.experts.cache import SlotCache
from edge.experts.fetch import most_pinned
from edge.experts.policies import DecayedLfu, ExpertKey, Lru, Policy, Ranked
from edge.experts.trace import Access, Trace

NEVER = 2**62


class Belady:
    """The bound: what is needed again last gives way. Knows the future, so it is no policy for an engine."""

    def __init__(self, accesses: Iterable[Access], *, of_decoding: bool = False) -> None:
        """`accesses`: all that will come, in order. `of_decoding`: only what decoding needs is worth keeping."""
        self._of_decoding = of_decoding
        self._future: dict[ExpertKey, deque[int]] = defaultdict(deque)
        for time, access in enumerate(accesses):
            if not (of_decoding and access.is_scan):
                for expert in access.experts:
                    self._future[ExpertKey(access.layer, expert)].append(time)
        self._resident = Ranked()

    def use(self, key: ExpertKey, *, is_scan: bool) -> None:
        """See Policy."""
        if self._of_decoding and is_scan:
            return
        self._future[key].popleft()
        if key in self._resident:
            self.admit(key, is_scan=is_scan)

    def admit(self, key: ExpertKey, *, is_scan: bool) -> None:  # noqa: ARG002 of the protocol
        """See Policy."""
        future = self._future[key]
        self._resident[key] = (-future[0] if future else -NEVER, 0)

    def remove(self, key: ExpertKey) -> None:
        """See Policy."""
        del self._resident[key]

    def victim(self, held: Container[ExpertKey]) -> ExpertKey | None:
        """See Policy."""
        return self._resident.lowest(held)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cache would have done."""

    lookups: int
    hits: int
    decode_lookups: int  # of passes without prompts
    decode_hits: int

    @property
    def hit_rate(self) -> float:
        """Over the whole trace."""
        return self.hits / self.lookups if self.lookups else 0.0

    @property
    def decode_hit_rate(self) -> float:
        """While decoding only."""
        return self.decode_hits / self.decode_lookups if self.decode_lookups else 0.0


# By the name that the command knows. Each is made for a number of slots and a trace of so many uses per pass.
POLICIES: Mapping[str, Callable[[float, Iterable[Access]], Policy]] = {
    "lru": lambda _, __: Lru(resists_scans=False),
    "scan-lru": lambda _, __: Lru(resists_scans=True),
    "lfu": lambda uses, _: DecayedLfu.for_passes(uses),
    "belady": lambda _, accesses: Belady(accesses),
    "decode-belady": lambda _, accesses: Belady(accesses, of_decoding=True),
}


def replay(accesses: Iterable[Access], policy: Policy, num_slots: int) -> Iterator[tuple[Access, list[bool]]]:
    """Each access, and for each of its experts whether it would have been in RAM."""
    cache = SlotCache(num_slots, policy)
    for access in accesses:
        keys = [ExpertKey(access.layer, expert) for expert in access.experts]
        yield access, [cache.use(key, is_scan=access.is_scan) for key in keys]
        _load(cache, keys, access.is_scan)


def simulate(accesses: Iterable[Access], policy: Policy, num_slots: int) -> Outcome:
    """Ask a cache for all `accesses` as the expert store does: what is needed together is held together."""
    counts = {True: [0, 0], False: [0, 0]}  # by is_scan: look-ups, hits
    for access, found in replay(accesses, policy, num_slots):
        counts[access.is_scan][0] += len(found)
        counts[access.is_scan][1] += sum(found)
    (scans, scan_hits), (decodes, decode_hits) = counts[True], counts[False]
    return Outcome(scans + decodes, scan_hits + decode_hits, decodes, decode_hits)


def _load(cache: SlotCache, keys: list[ExpertKey], is_scan: bool) -> None:
    """Bring in what is missing, with as many held at once as a fetch would hold."""
    held = deque[ExpertKey]()
    if not is_scan:
        keys = sorted(keys, key=lambda key: key not in cache)
    for key in keys:
        if len(held) == most_pinned(cache.num_slots, is_scan=is_scan):
            cache.unpin(held.popleft())
        if key not in cache:
            cache.admit(key, is_scan=is_scan)
        cache.pin(key)
        held.append(key)
    for key in held:
        cache.unpin(key)


def compare(accesses: Sequence[Access] | Trace, names: Sequence[str], sizes: Sequence[int]) -> dict[int, list[Outcome]]:
    """By number of slots, what each of the named POLICIES would have done."""
    uses = uses_per_pass(accesses)
    return {
        num_slots: [simulate(accesses, POLICIES[name](uses, accesses), num_slots) for name in names]
        for num_slots in sizes
    }


def uses_per_pass(accesses: Iterable[Access]) -> float:
    """How many experts a pass without prompts needs, all layers together; of any pass if there is none; at least 1."""
    uses: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    for access in accesses:
        uses[access.is_scan][access.step] += len(access.experts)
    counts = uses[False] or uses[True]
    return max(1.0, counts.total() / len(counts)) if counts else 1.0
