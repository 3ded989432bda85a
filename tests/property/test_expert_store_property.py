"""Whatever is asked for, guessed, broken or left half-way: blocks are right, nothing blocks, no slot is lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import StorageError
from edge.experts.gate import Gate, Gates
from edge.experts.policies import DecayedLfu, Lru, Policy
from edge.experts.store import ExpertStore
from tests.unit.edge.experts.memory_disk import Index, MemoryDisk

NUM_LAYERS, NUM_EXPERTS = 3, 6

experts = st.lists(st.integers(0, NUM_EXPERTS - 1), min_size=1, unique=True).map(sorted)
places = st.sets(st.tuples(st.integers(0, NUM_LAYERS - 1), st.integers(0, NUM_EXPERTS - 1)))
steps = st.fixed_dictionaries(
    {
        "layer": st.integers(0, NUM_LAYERS - 1),
        "experts": experts,
        "guess": st.none() | experts,
        "is_scan": st.booleans(),
        "begun": places,
        "all_begun": places,
        "done": places,
        "broken": places,
        "batches": st.integers(0, NUM_EXPERTS),  # taken before the fetch is left
    }
)


class OpenGate(Gate):
    """Reads every guess."""

    def admits(self, place: int) -> bool:
        """Whatever became of others."""
        return True


def walk(store: ExpertStore, step: dict[str, object]) -> None:
    layer, wanted, guess, batches = step["layer"], step["experts"], step["guess"], step["batches"]
    assert isinstance(layer, int)
    assert isinstance(wanted, list)
    assert isinstance(batches, int)
    with store.fetch(layer, wanted, is_scan=bool(step["is_scan"])) as fetch:
        if isinstance(guess, list):
            store.expect((layer + 1) % NUM_LAYERS, guess)
        seen = []
        for number, batch in enumerate(fetch):
            assert batch
            assert all((block == 10 * layer + expert).all() for expert, block in batch)
            seen += [expert for expert, _ in batch]
            if number == batches:
                return
        assert sorted(seen) == wanted


@settings(max_examples=150, deadline=None)
@given(num_slots=st.integers(1, 8), is_lfu=st.booleans(), script=st.lists(steps, max_size=12))
def test_any_course_of_events(num_slots: int, is_lfu: bool, script: list[dict[str, object]]) -> None:
    disk = MemoryDisk()
    policy: Policy = DecayedLfu(10) if is_lfu else Lru(resists_scans=True)
    store = ExpertStore(Index(), num_slots, disk, policy, gates=Gates(OpenGate(), OpenGate()))
    for step in script:
        for name in ("begun", "all_begun", "done", "broken"):
            setattr(disk, name, step[name])
        try:
            walk(store, step)
        except StorageError:
            assert disk.broken
    disk.broken = set()
    disk.done = {(layer, expert) for layer in range(NUM_LAYERS) for expert in range(NUM_EXPERTS)}
    for layer in range(NUM_LAYERS):  # all slots can be had, every block is right, and no read is left behind
        walk(
            store, {"layer": layer, "experts": list(range(NUM_EXPERTS)), "guess": None, "is_scan": True, "batches": 99}
        )
    assert not disk.open
    assert store.num_resident == min(num_slots, NUM_LAYERS * NUM_EXPERTS)
