"""A read that cannot be trusted is a StorageError naming file, offset and cause; a wrong call a ValueError."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.checkpoint.matrix import aligned_zeros
from edge.errors import StorageError
from edge.kernels import ExpertReader, crc32c

BLOCK = 3 * 2**20 + 4096

MakeFile = Callable[[str, int], Path]


def count(directory: str) -> int:
    return sum(1 for _ in Path(directory).iterdir())


def read(reader: ExpertReader, offset: int, size: int, crc: int | None = None) -> None:
    reader.wait(reader.read(0, offset, aligned_zeros(size, 4096), crc))


@pytest.fixture(params=[True, False], ids=["direct", "buffered"])
def direct(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_missing_file_is_named(tmp_path: Path, direct: bool) -> None:
    with pytest.raises(StorageError, match=r"cannot open .*absent: No such file or directory \(errno 2\)"):
        ExpertReader([tmp_path / "absent"], direct=direct)


def test_a_directory_is_no_file(tmp_path: Path, direct: bool) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*: not a regular file"):
        ExpertReader([tmp_path], direct=direct)


@pytest.fixture
def _not_root() -> Iterator[None]:
    """Root may read everything; `nobody` may not."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.usefixtures("_not_root")
def test_a_forbidden_file_is_named(direct: bool) -> None:
    with pytest.raises(StorageError, match=r"cannot open /etc/shadow: Permission denied \(errno 13\)"):
        ExpertReader(["/etc/shadow"], direct=direct)


def test_a_good_file_beside_a_bad_one_is_closed_again(make_file: MakeFile, tmp_path: Path) -> None:
    path = make_file("a", 4096)
    before = count("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(StorageError):
            ExpertReader([path, tmp_path / "absent"])
    assert count("/proc/self/fd") == before


@pytest.mark.parametrize("left", [0, 100, 4096, 2**20 + 512])
def test_a_file_cut_while_open_is_a_short_read(left: int, make_file: MakeFile, direct: bool) -> None:
    path = make_file("a", BLOCK)
    with ExpertReader([path], direct=direct) as reader:
        was_direct = reader.direct
        os.truncate(path, left)
        with pytest.raises(
            StorageError, match=rf"short read of .*a at offset 0: the file has {left} bytes, .* {BLOCK}"
        ):
            read(reader, 0, BLOCK)
        assert reader.direct == was_direct


def test_reading_beyond_the_end_is_a_short_read(make_file: MakeFile, direct: bool) -> None:
    with ExpertReader([make_file("a", BLOCK)], direct=direct) as reader:
        with pytest.raises(StorageError, match="short read"):
            read(reader, BLOCK, 4096)
        with pytest.raises(StorageError, match=r"cannot read .*errno|short read"):
            read(reader, 2**62, 4096)
        read(reader, 0, BLOCK)  # and the reader goes on


def test_an_altered_byte_is_found_with_its_checksums(make_file: MakeFile, direct: bool) -> None:
    path = make_file("a", BLOCK)
    expected = crc32c(path.read_bytes())
    with path.open("r+b") as file:
        file.seek(BLOCK - 1)
        last = file.read(1)[0]
        file.seek(BLOCK - 1)
        file.write(bytes([last ^ 1]))
    with ExpertReader([path], direct=direct) as reader:
        with pytest.raises(
            StorageError, match=rf"altered data in .*a at offset 0, {BLOCK} bytes: checksum .*{expected:08x}"
        ):
            read(reader, 0, BLOCK, expected)
        read(reader, 0, BLOCK, crc32c(path.read_bytes()))


def test_an_unlinked_file_is_still_read(make_file: MakeFile, direct: bool) -> None:
    path = make_file("a", BLOCK)
    data = path.read_bytes()
    with ExpertReader([path], direct=direct) as reader:
        path.unlink()
        read(reader, 0, BLOCK, crc32c(data))


def test_failures_among_good_reads_stay_their_own(make_file: MakeFile) -> None:
    path = make_file("a", 4 * 4096)
    with ExpertReader([path], threads=3) as reader:
        tickets = [reader.read(0, block * 4096, aligned_zeros(4096, 4096), None) for block in range(8)]
        for block, ticket in enumerate(tickets):
            if block < 4:
                reader.wait(ticket)
            else:
                with pytest.raises(StorageError, match=f"at offset {block * 4096}"):
                    reader.wait(ticket)


@pytest.mark.parametrize(
    ("file", "offset", "out", "message"),
    [
        (1, 0, aligned_zeros(4096, 4096), "file is 1, there are 1"),
        (0, 512, aligned_zeros(4096, 4096), "offset is not a multiple"),
        (0, 2**63, aligned_zeros(4096, 4096), "offset is not a multiple"),
        (0, 0, aligned_zeros(4096 + 512, 4096), "size of out is not a multiple"),
        (0, 0, aligned_zeros(4096, 4096)[:0], "size of out is not a multiple"),
        (0, 0, aligned_zeros(8192, 4096)[512:4608], "out is not aligned"),
    ],
)
def test_a_wrong_place_is_refused(file: int, offset: int, out: Any, message: str, make_file: MakeFile) -> None:
    with ExpertReader([make_file("a", 8192)]) as reader, pytest.raises(ValueError, match=message):
        reader.read(file, offset, out, None)


@pytest.mark.parametrize(
    "out",
    [np.zeros(4096, np.int8), np.zeros((1, 4096), np.uint8), np.zeros(8192, np.uint8)[::2], bytes(4096)],
    ids=["int8", "rank 2", "strided", "read-only"],
)
def test_a_wrong_destination_is_refused(out: Any, make_file: MakeFile) -> None:
    with ExpertReader([make_file("a", 8192)]) as reader:
        with pytest.raises(TypeError):
            reader.read(0, 0, out, None)
        with pytest.raises(TypeError):
            reader.read(0, 0, aligned_zeros(4096, 4096), -1)


def test_a_ticket_is_waited_for_once(make_file: MakeFile) -> None:
    with ExpertReader([make_file("a", 4096)]) as reader:
        ticket = reader.read(0, 0, aligned_zeros(4096, 4096), None)
        reader.wait(ticket)
        with pytest.raises(ValueError, match=f"ticket {ticket} is not open"):
            reader.wait(ticket)
        with pytest.raises(ValueError, match="ticket 77 is not open"):
            reader.is_done(77)


def test_close_drops_what_has_not_begun(make_file: MakeFile) -> None:
    path = make_file("a", BLOCK)
    reader = ExpertReader([path], threads=1)
    tickets = [reader.read(0, 0, aligned_zeros(BLOCK, 4096), None) for _ in range(50)]
    reader.close()
    reader.close()
    with pytest.raises(StorageError, match="dropped: the reader was closed"):
        reader.wait(tickets[-1])
    with pytest.raises(ValueError, match="the reader is closed"):
        reader.read(0, 0, aligned_zeros(BLOCK, 4096), None)


def test_a_reader_that_is_forgotten_ends_its_threads(make_file: MakeFile) -> None:
    path = make_file("a", BLOCK)
    before = count("/proc/self/task")
    reader = ExpertReader([path], threads=5)
    reader.read(0, 0, aligned_zeros(BLOCK, 4096), None)
    assert count("/proc/self/task") == before + 5
    del reader
    assert count("/proc/self/task") == before


@pytest.mark.parametrize("threads", [0, 1025])
def test_thread_counts_have_limits(threads: int, make_file: MakeFile) -> None:
    with pytest.raises(ValueError, match=f"threads is {threads}, expected 1 to 1024"):
        ExpertReader([make_file("a", 4096)], threads=threads)
