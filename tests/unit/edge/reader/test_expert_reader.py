"""Blocks arrive whole, in any order, from any number of threads."""

import ctypes
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.checkpoint.matrix import aligned_zeros
from edge.kernels import ExpertReader, crc32c

BLOCK = 3 * 2**20 + 4096  # several parts, the last one short

MakeFile = Callable[[str, int], Path]


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("threads", [1, 5])
def test_many_reads_at_once_of_several_files(direct: bool, threads: int, make_file: MakeFile) -> None:
    paths = [make_file("a", 4 * BLOCK), make_file("bc", 3 * BLOCK)]
    stored = [path.read_bytes() for path in paths]
    blocks = [(file, block) for file in (1, 0) for block in (2, 0, 1)]
    with ExpertReader(paths, threads=threads, direct=direct) as reader:
        outs = [aligned_zeros(BLOCK, 4096) for _ in blocks]
        tickets = []
        for (file, block), out in zip(blocks, outs, strict=True):
            expected = stored[file][block * BLOCK : (block + 1) * BLOCK]
            tickets.append(reader.read(file, block * BLOCK, out, crc32c(expected)))
        for ticket in reversed(tickets):
            reader.wait(ticket)
        for (file, block), out in zip(blocks, outs, strict=True):
            assert out.tobytes() == stored[file][block * BLOCK : (block + 1) * BLOCK]
        assert reader.bytes_read == len(blocks) * BLOCK
        assert reader.busy_seconds > 0
        assert not (reader.direct and not direct)


def test_a_file_system_without_o_direct_is_read_all_the_same(make_file: MakeFile) -> None:
    """A tmpfs refuses the flag on older kernels and takes it on newer ones; both must do."""
    shm = Path("/dev/shm")  # noqa: S108 the point is a file system that keeps files in memory
    if not shm.is_dir():
        pytest.skip("no /dev/shm")
    data = make_file("a", 8192).read_bytes()
    path = shm / f"flashgate-test-{threading.get_native_id()}"
    path.write_bytes(data)
    try:
        with ExpertReader([path], threads=2) as reader:
            out = aligned_zeros(8192, 4096)
            reader.wait(reader.read(0, 0, out, crc32c(data)))
            assert out.tobytes() == data
    finally:
        path.unlink()


def test_is_done_becomes_true_without_waiting(make_file: MakeFile) -> None:
    with ExpertReader([make_file("a", BLOCK)], threads=1) as reader:
        first, second = (reader.read(0, 0, aligned_zeros(BLOCK, 4096), None) for _ in range(2))
        reader.wait(second)  # one thread, so the first has ended too
        assert reader.is_done(first)
        reader.wait(first)


def test_destinations_live_until_waited_for(make_file: MakeFile) -> None:
    path = make_file("a", BLOCK)
    with ExpertReader([path], threads=3) as reader:
        tickets = [reader.read(0, 0, aligned_zeros(BLOCK, 4096), crc32c(path.read_bytes())) for _ in range(8)]
        for ticket in tickets:  # the arrays have no other owner
            reader.wait(ticket)


def test_threads_of_python_share_a_reader(make_file: MakeFile) -> None:
    path = make_file("a", 8 * 4096)
    data = path.read_bytes()
    wrong: list[int] = []
    with ExpertReader([path], threads=4) as reader:

        def read_all() -> None:
            out = aligned_zeros(4096, 4096)
            for block in range(8):
                reader.wait(reader.read(0, block * 4096, out, None))
                if out.tobytes() != data[block * 4096 : (block + 1) * 4096]:
                    wrong.append(block)

        callers = [threading.Thread(target=read_all) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not wrong


def test_waiting_lets_other_python_threads_run(make_file: MakeFile) -> None:
    """The GIL is released: a thread that only Python can run makes progress during `wait`."""
    path = make_file("a", BLOCK)
    with ExpertReader([path], threads=1) as reader:
        tickets = [reader.read(0, 0, aligned_zeros(BLOCK, 4096), None) for _ in range(8)]
        waiter = threading.Thread(target=reader.wait, args=(tickets[-1],))
        waiter.start()
        for ticket in tickets[:-1]:
            reader.wait(ticket)
        waiter.join()


def cached_pages(path: Path) -> int:
    """Pages of a file that the page cache holds, by mincore(2)."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        states = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        status = libc.mincore(
            ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view)), ctypes.c_void_p(states.ctypes.data)
        )
        del view
    assert status == 0
    return int((states & 1).sum())


@pytest.mark.parametrize("direct", [True, False])
def test_nothing_stays_in_the_page_cache(direct: bool, make_file: MakeFile) -> None:
    path = make_file("a", BLOCK)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_pages(path) > 0:
        pytest.skip("this file system keeps its files in memory")
    with ExpertReader([path], threads=4, direct=direct) as reader:
        reader.wait(reader.read(0, 0, aligned_zeros(BLOCK, 4096), None))
    assert cached_pages(path) == 0
