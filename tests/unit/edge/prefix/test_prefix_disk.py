"""Snapshots on disk: exact or not there, within their budget, and never an error to anybody."""

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from edge.prefix import disk
from edge.prefix.directory import PrefixDirectory
from edge.prefix.disk import DiskTier
from edge.prefix.keys import PrefixKeys
from edge.prefix.snapshot import snapshot_pages
from edge.prefix.snapshot_file import HEADER_BYTES, Address
from edge.prefix.writer import SnapshotWriter
from tests.unit.edge.prefix.samples import random_snapshot

IDENTITY = b"i" * 32
SNAPSHOT = random_snapshot(40)
FILE_BYTES = HEADER_BYTES + SNAPSHOT.nbytes
LENGTH_OFFSET = 16 + 4 + 32 + 16 + 32  # of the field in the header


def open_tier(path: Path, *, budget_bytes: int = 10**9, identity: bytes = IDENTITY) -> DiskTier:
    directory = PrefixDirectory(path)
    return DiskTier(directory, PrefixKeys(directory.secret()), identity, budget_bytes)


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[DiskTier]:
    tier = open_tier(tmp_path / "d")
    yield tier
    tier.directory.close()


def address_of(tier: DiskTier, number: int, tenant: str = "a") -> Address:
    scope = tier.keys.scope(tenant)
    return Address(scope, tier.keys.name(scope, [number]), SNAPSHOT.length)


def save(tier: DiskTier, number: int, tenant: str = "a") -> Path:
    address = address_of(tier, number, tenant)
    assert tier.save(address.scope, address.name, SNAPSHOT)
    return tier.directory.path / address.file_name


def load(tier: DiskTier, number: int, tenant: str = "a") -> bool:
    """Whether the snapshot is there; it is then exact."""
    out = snapshot_pages(SNAPSHOT.nbytes)
    found = tier.load(address_of(tier, number, tenant), out)
    assert not found or np.array_equal(out, SNAPSHOT.data)
    return found


def test_a_snapshot_comes_back_to_the_byte_also_in_another_process(tier: DiskTier) -> None:
    assert not load(tier, 1)
    path = save(tier, 1)
    assert load(tier, 1)
    later = open_tier(tier.directory.path)
    later.sweep()
    assert later.addresses(later.keys.scope("a")) == {address_of(tier, 1)}
    assert load(later, 1)
    later.directory.close()
    assert (path.stat().st_size, stat.S_IMODE(path.stat().st_mode)) == (FILE_BYTES, 0o600)


def test_a_file_system_without_direct_io_serves_as_well(tier: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, command: int, argument: int = 0) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    save(tier, 1)
    assert load(tier, 1)


def test_nothing_of_tenant_or_tokens_stands_in_a_file_or_its_name(tier: DiskTier) -> None:
    path = save(tier, 1, "tenant-name")
    assert b"tenant-name" not in path.name.encode() + path.read_bytes()[:HEADER_BYTES]


def truncate(path: Path, size: int) -> None:
    os.truncate(path, size)


def zero(path: Path) -> None:
    path.write_bytes(bytes(FILE_BYTES))


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


FAULTS: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: truncate(path, 0),
    "half a header": lambda path: truncate(path, 100),
    "no data": lambda path: truncate(path, HEADER_BYTES),
    "a page short": lambda path: truncate(path, FILE_BYTES - 4096),
    "a byte short": lambda path: truncate(path, FILE_BYTES - 1),
    "longer": lambda path: truncate(path, FILE_BYTES + 4096),
    "all zeros": zero,
    "magic": lambda path: flip(path, 0),
    "version": lambda path: flip(path, 16),
    "identity": lambda path: flip(path, 20),
    "length": lambda path: flip(path, LENGTH_OFFSET),
    "seal": lambda path: flip(path, LENGTH_OFFSET + 8 + 8 + 4),
    "first byte of data": lambda path: flip(path, HEADER_BYTES),
    "last byte of data": lambda path: flip(path, FILE_BYTES - 1),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_file_is_ignored_and_removed(tier: DiskTier, fault: str) -> None:
    path = save(tier, 1)
    FAULTS[fault](path)
    with capture_logs() as logs:
        assert not load(tier, 1)
    assert not path.exists()
    assert [(entry["event"], set(entry)) for entry in logs] == [
        ("prefix_file_removed", {"event", "log_level", "reason"})
    ]
    save(tier, 1)
    assert load(tier, 1)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if "byte of data" not in fault])
def test_a_sweep_removes_what_its_header_gives_away(tier: DiskTier, fault: str) -> None:
    path, sound = save(tier, 1), save(tier, 2)
    FAULTS[fault](path)
    (tier.directory.path / tier.directory.new_file_name()).touch()
    tier.sweep()
    assert {entry.name for entry in tier.directory.path.iterdir()} == {"secret", sound.name}


def test_a_file_under_another_name_is_removed(tier: DiskTier) -> None:
    other = address_of(tier, 2)
    save(tier, 1).rename(tier.directory.path / other.file_name)
    assert not load(tier, 2)
    assert not (tier.directory.path / other.file_name).exists()


def test_a_file_of_another_directory_is_removed(tier: DiskTier, tmp_path: Path) -> None:
    stranger = open_tier(tmp_path / "other")
    content = save(stranger, 1).read_bytes()
    stranger.directory.close()
    path = tier.directory.path / address_of(tier, 1).file_name
    path.write_bytes(content)
    assert not load(tier, 1)
    assert not path.exists()


def test_a_file_of_another_size_than_the_model_needs_is_removed(tier: DiskTier) -> None:
    path = save(tier, 1)
    assert not tier.load(address_of(tier, 1), snapshot_pages(SNAPSHOT.nbytes + 4096))
    assert not path.exists()


def test_a_link_in_place_of_a_file_is_not_followed(tier: DiskTier, tmp_path: Path) -> None:
    path = save(tier, 1)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not load(tier, 1)
    assert not path.is_symlink()
    assert (tmp_path / "elsewhere").stat().st_size == FILE_BYTES


def test_a_pipe_in_place_of_a_file_holds_nobody_up(tier: DiskTier) -> None:
    path = tier.directory.path / address_of(tier, 1).file_name
    os.mkfifo(path)
    assert not load(tier, 1)
    assert not path.exists()


def test_another_model_s_snapshot_is_not_used_but_left_to_its_engine(tier: DiskTier) -> None:
    path = save(tier, 1)
    other = open_tier(tier.directory.path, identity=b"j" * 32)
    other.sweep()
    assert not load(other, 1)
    assert path.exists()
    other.directory.close()


def test_files_of_other_kinds_are_never_touched(tier: DiskTier) -> None:
    save(tier, 1)
    note = tier.directory.path / "note.prefix"
    note.write_text("mine")
    tier.sweep()
    tier.directory.forget(tier.keys.scope("a"))
    assert note.read_text() == "mine"


def used_at(path: Path, second: int) -> None:
    os.utime(path, (second, second))


def test_the_least_recently_used_files_give_way(tmp_path: Path) -> None:
    tier = open_tier(tmp_path / "d", budget_bytes=3 * FILE_BYTES)
    paths = [save(tier, number) for number in range(3)]
    for path, second in zip(paths, (20, 10, 30), strict=True):
        used_at(path, second)
    assert load(tier, 1)  # now the youngest
    save(tier, 3)
    assert [path.exists() for path in paths] == [False, True, True]
    total = sum(path.stat().st_size for path in tier.directory.path.glob("*.prefix"))
    assert total <= tier.budget_bytes
    tier.directory.close()


def test_a_tenant_that_floods_the_disk_pushes_nobody_out(tmp_path: Path) -> None:
    tier = open_tier(tmp_path / "d", budget_bytes=3 * FILE_BYTES)
    used_at(save(tier, 0, "quiet"), 1)
    for number in range(5):
        used_at(save(tier, number), 2 + number)
    assert load(tier, 0, "quiet")
    assert [load(tier, number) for number in range(5)] == [False, False, False, True, True]
    tier.directory.close()


def test_what_only_has_the_name_of_a_snapshot_neither_counts_nor_stops_others(tmp_path: Path) -> None:
    tier = open_tier(tmp_path / "d", budget_bytes=2 * FILE_BYTES)
    directory = tier.directory.path / address_of(tier, 9).file_name
    directory.mkdir()
    used_at(directory, 1)
    tier.sweep()
    for number in range(3):
        used_at(save(tier, number), 2 + number)
    assert [load(tier, number) for number in range(3)] == [False, True, True]
    tier.directory.close()


def test_a_snapshot_beyond_the_budget_costs_no_other(tmp_path: Path) -> None:
    tier = open_tier(tmp_path / "d", budget_bytes=FILE_BYTES)
    save(tier, 1)
    address = address_of(tier, 2)
    assert not tier.save(address.scope, address.name, random_snapshot(2000))
    assert load(tier, 1)
    tier.directory.close()


def test_there_are_only_so_many_files(tier: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "MAX_FILES", 2)
    for number in range(4):
        used_at(save(tier, number), number)
    assert [load(tier, number) for number in range(4)] == [False, False, True, True]


def test_the_last_free_bytes_of_a_disk_are_not_taken(tier: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=disk.FREE_BYTES // 4096, f_frsize=4096))
    address = address_of(tier, 1)
    with capture_logs() as logs:
        assert not tier.save(address.scope, address.name, SNAPSHOT)
    assert [entry["event"] for entry in logs] == ["prefix_disk_full"]
    assert not list(tier.directory.path.glob("*.prefix"))


@pytest.mark.parametrize("call", ["pwritev", "fsync", "rename"])
def test_a_write_that_fails_leaves_nothing(tier: DiskTier, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*args: object, **kwargs: object) -> int:
        raise OSError(28, "No space left on device")

    save(tier, 0)
    address = address_of(tier, 1)
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(os, call, fail)
        assert not tier.save(address.scope, address.name, SNAPSHOT)
    assert [(entry["event"], entry["errno"]) for entry in logs] == [("prefix_write_failed", 28)]
    assert {path.name for path in tier.directory.path.iterdir()} == {"secret", address_of(tier, 0).file_name}
    save(tier, 1)
    assert load(tier, 1)


def test_a_read_that_fails_is_no_snapshot(tier: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> int:
        raise OSError(5, "Input/output error")

    save(tier, 1)
    monkeypatch.setattr(os, "preadv", fail)
    assert not load(tier, 1)


def test_a_disk_that_became_read_only_serves_what_it_has(tier: DiskTier, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    path = save(tier, 1)
    address = address_of(tier, 2)
    for call in ("utime", "unlink", "open"):
        original = getattr(os, call)
        is_read = call == "open"
        monkeypatch.setattr(
            os,
            call,
            lambda name, flags=0, *rest, is_read=is_read, original=original, **named: (
                original(name, flags, *rest, **named) if is_read and not flags & os.O_CREAT else refuse()
            ),
        )
    assert load(tier, 1)
    assert not tier.save(address.scope, address.name, SNAPSHOT)
    tier.sweep()
    monkeypatch.undo()
    assert path.exists()


def test_a_directory_that_vanished_is_no_error(tier: DiskTier) -> None:
    save(tier, 1).unlink()
    (tier.directory.path / "secret").unlink()
    tier.directory.path.rmdir()
    address = address_of(tier, 1)
    assert not tier.save(address.scope, address.name, SNAPSHOT)
    assert tier.addresses(address.scope) == set()
    assert not load(tier, 1)


def test_a_tenant_is_forgotten_and_the_others_are_not(tier: DiskTier) -> None:
    save(tier, 1, "a")
    save(tier, 2, "a")
    save(tier, 1, "b")
    tier.directory.forget(tier.keys.scope("a"))
    assert [load(tier, 1, "a"), load(tier, 2, "a"), load(tier, 1, "b")] == [False, False, True]


def test_clearing_removes_all_and_the_secret(tier: DiskTier) -> None:
    for number in range(3):
        save(tier, number)
    assert tier.directory.clear() == 3
    assert not list(tier.directory.path.iterdir())


def test_engines_that_share_a_directory_never_meet_a_wrong_byte(tmp_path: Path) -> None:
    tiers = [open_tier(tmp_path / "d", budget_bytes=4 * FILE_BYTES) for _ in range(3)]
    outcomes = list[bool]()

    def work(own: int) -> None:
        for number in range(24):
            address = address_of(tiers[own], number % 7)
            tiers[own].save(address.scope, address.name, SNAPSHOT)
            outcomes.append(load(tiers[own], (number + own) % 7))

    threads = [threading.Thread(target=work, args=(own,)) for own in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 72
    assert any(outcomes)
    assert not tiers[0].directory.unfinished()
    for tier in tiers:
        tier.directory.close()


def test_an_error_that_nobody_foresaw_costs_one_snapshot_and_holds_no_memory() -> None:
    saved = list[bytes]()

    def break_on_first(scope: bytes, name: bytes, snapshot: object) -> None:
        if name == b"1":
            raise ValueError("canary")
        saved.append(name)

    with capture_logs() as logs:
        writer = SnapshotWriter(break_on_first)
        writer.submit(b"scope", b"1", SNAPSHOT)
        writer.submit(b"scope", b"2", SNAPSHOT)
        writer.drain()
        assert writer.pending == frozenset()
        writer.close()
    assert saved == [b"2"]
    assert [(entry["event"], entry["error"]) for entry in logs] == [("prefix_writer_broke", "ValueError")]
    assert "canary" not in str(logs)


def test_the_writer_keeps_order_and_knows_what_is_left() -> None:
    may_write, saved = threading.Event(), list[bytes]()

    def save_slowly(scope: bytes, name: bytes, snapshot: object) -> None:
        may_write.wait(30)
        saved.append(name)

    writer = SnapshotWriter(save_slowly)
    for name in (b"1", b"2", b"1", b"3"):
        writer.submit(b"scope", name, SNAPSHOT)
    assert writer.pending == {b"1", b"2", b"3"}
    may_write.set()
    writer.drain()
    assert (saved, writer.pending) == ([b"1", b"2", b"3"], frozenset())
    writer.submit(b"scope", b"4", SNAPSHOT)
    writer.close()
    assert saved[-1] == b"4"
