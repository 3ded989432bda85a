"""The budget holds whatever happens, and the least recently used snapshots of who has most give way."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.prefix.cache import SnapshotCache
from edge.prefix.snapshot import Snapshot

A, B = b"scope a", b"scope b"


def snapshot(nbytes: int, length: int = 1) -> Snapshot:
    return Snapshot(length, np.zeros(nbytes, np.uint8))


def put(cache: SnapshotCache, name: bytes, nbytes: int, scope: bytes = A, length: int = 1) -> bool:
    if not cache.reserve(scope, nbytes):
        return False
    cache.put(name, scope, snapshot(nbytes, length))
    return True


def held(cache: SnapshotCache) -> set[bytes]:
    return {bytes([code]) for code in range(97, 123) if bytes([code]) in cache}


def test_a_snapshot_beyond_the_budget_is_refused_and_nothing_is_lost() -> None:
    cache = SnapshotCache(100)
    assert put(cache, b"a", 100)
    assert not put(cache, b"b", 101)
    assert held(cache) == {b"a"}


def test_what_was_used_last_stays() -> None:
    cache = SnapshotCache(100)
    for name in (b"a", b"b", b"c"):
        assert put(cache, name, 30)
    assert cache.get(b"a") is not None
    assert cache.get(b"x") is None
    assert put(cache, b"d", 40)
    assert held(cache) == {b"a", b"c", b"d"}
    assert put(cache, b"e", 90)
    assert held(cache) == {b"e"}


def test_a_tenant_that_floods_pushes_nobody_out() -> None:
    cache = SnapshotCache(100)
    assert put(cache, b"b", 40, B)
    for number in range(20):
        assert put(cache, b"a%d" % number, 30)
        assert b"b" in cache
    assert cache.nbytes == 100


def test_a_pinned_snapshot_stays_and_its_bytes_count() -> None:
    cache = SnapshotCache(100)
    put(cache, b"a", 60)
    put(cache, b"b", 30)
    assert not cache.reserve(A, 50, pinned=(b"a",))
    assert held(cache) == {b"a", b"b"}
    assert cache.reserve(A, 40, pinned=(b"a",))
    assert held(cache) == {b"a"}
    assert cache.nbytes == 100


def test_room_that_is_given_back_is_free() -> None:
    cache = SnapshotCache(100)
    assert cache.reserve(A, 100)
    assert not cache.reserve(A, 1)
    cache.release(100)
    assert put(cache, b"a", 100)


def test_scopes_know_their_own_lengths_and_are_forgotten_alone() -> None:
    cache = SnapshotCache(100)
    put(cache, b"a", 10, A, 5)
    put(cache, b"b", 10, A, 7)
    put(cache, b"c", 10, B, 9)
    assert (cache.lengths(A), cache.lengths(B), cache.lengths(b"")) == ({5, 7}, {9}, set())
    cache.forget(A)
    assert (held(cache), cache.nbytes) == ({b"c"}, 10)
    cache.clear()
    assert (held(cache), cache.nbytes) == (set(), 0)


@dataclass(frozen=True)
class Action:
    kind: str
    name: bytes
    nbytes: int


actions = st.builds(
    Action,
    st.sampled_from(["put", "get", "reserve", "release", "pinned"]),
    st.sampled_from([b"a", b"b", b"c", b"d", b"e"]),
    st.integers(1, 60),
)


@given(st.lists(actions, max_size=60))
def test_the_budget_holds_and_every_byte_is_counted(steps: list[Action]) -> None:
    cache, reserved, sizes = SnapshotCache(100), list[int](), dict[bytes, int]()
    for step in steps:
        match step.kind:
            case "put" if step.name not in cache:
                if put(cache, step.name, step.nbytes):
                    sizes[step.name] = step.nbytes
            case "get":
                found = cache.get(step.name)
                assert found is None or found.nbytes == sizes[step.name]
            case "release" if reserved:
                cache.release(reserved.pop())
            case "reserve":
                if cache.reserve(A, step.nbytes):
                    reserved.append(step.nbytes)
            case "pinned":
                before = step.name in cache
                if cache.reserve(A, step.nbytes, pinned=(step.name,)):
                    reserved.append(step.nbytes)
                assert (step.name in cache) == before
        assert cache.nbytes == sum(reserved) + sum(sizes[name] for name in held(cache))
        assert cache.nbytes <= 100
