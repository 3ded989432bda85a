"""Traces come back as they were recorded; what is no trace is refused; the command prints what each policy would do."""

from pathlib import Path

import numpy as np
import pytest

from edge.cli import main
from edge.errors import TraceError
from edge.experts.trace import Access, Trace, TraceWriter
from tests.unit.edge.experts.skewed_traces import skewed_trace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.trace"


def test_a_trace_comes_back(path: Path) -> None:
    with TraceWriter(path) as writer:
        for layer, experts, is_scan in [(0, [1, 5], True), (1, [2], True), (0, [3, 4], False), (1, [], False)]:
            writer.record(layer, experts, is_scan)
    trace = Trace.read(path)
    assert len(trace) == 4
    assert list(trace) == [
        Access(0, 0, (1, 5), True),
        Access(0, 1, (2,), True),
        Access(1, 0, (3, 4), False),
        Access(1, 1, (), False),
    ]
    assert list(trace) == list(trace)


def test_a_guess_comes_back_as_the_ranks_of_what_was_needed(path: Path) -> None:
    with TraceWriter(path, num_experts=8) as writer:
        writer.guess(1, np.array([[0.1, 0.4, 0.2, 0.3]], np.float32))
        writer.record(1, [1, 2], False)
        writer.record(1, [1, 2], False)  # a guess is for the next fetch alone
        writer.guess(1, np.array([[9, 0, 0, 1], [0, 9, 1, 0]], np.float32))  # of two tokens the better rank counts
        writer.record(1, [0, 1, 2, 3], False)
        writer.guess(2, np.ones((1, 4), np.float32))  # of another layer than the one that asks
        writer.record(1, [3], False)
        writer.guess(1, np.ones((1, 4), np.float32))
        writer.record(1, [3], True)  # a prompt's are not kept
    trace = Trace.read(path)
    assert [access.ranks for access in trace] == [(0, 2), (), (0, 0, 1, 1), (), ()]
    assert trace.num_experts == 8


def test_a_trace_that_was_not_told_counts_the_experts_that_were_asked_for(path: Path) -> None:
    with TraceWriter(path) as writer:
        for layer, experts in [(0, [1, 5]), (1, [1]), (0, [1, 2])]:
            writer.record(layer, experts, False)
    assert Trace.read(path).num_experts == 4


def test_an_empty_trace_comes_back(path: Path) -> None:
    TraceWriter(path).close()
    assert list(Trace.read(path)) == []


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TraceWriter(tmp_path / "absent" / "a.trace")


def array_file(header: bytes) -> bytes:
    """A plain .npy file, as numpy writes one."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


HUGE = array_file(b"{'descr': '<i4', 'fortran_order': False, 'shape': (100000000000000,), }\n")
PLAIN = array_file(b"{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }\n") + bytes(4)


@pytest.mark.parametrize("content", [b"", b"no trace", b"PK\x03\x04 cut off", HUGE, PLAIN])
def test_what_is_no_trace_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"a\.trace: not a trace"):
        Trace.read(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": None}, "not a trace"),
        ({"layer": np.zeros(3, np.int32)}, "differ in length"),
        ({"layer": np.zeros(2)}, "whole numbers"),
        ({"end": np.array([2, 1], np.int32)}, "do not add up"),
        ({"end": np.array([1, 2], np.int32)}, "do not add up"),
        ({"rank": np.zeros(2, np.int32)}, "differ in length"),
        ({"rank": None}, "not a trace"),
        ({"num_experts": np.zeros(0, np.int32)}, "how many experts"),
        ({"num_experts": np.array([-4], np.int32)}, "how many experts"),
    ],
)
def test_columns_that_do_not_fit_are_refused(path: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    zeros = np.zeros(2, np.int32)
    columns = {"step": zeros, "layer": zeros, "is_scan": zeros, "end": np.array([1, 3], np.int32)}
    columns["expert"] = columns["rank"] = np.zeros(3, np.int32)
    columns["num_experts"] = np.array([0], np.int32)
    with path.open("wb") as file:
        kept = {name: column for name, column in (columns | changes).items() if column is not None}
        np.savez(file, allow_pickle=False, **kept)
    with pytest.raises(TraceError, match=message):
        Trace.read(path)


@pytest.fixture
def recorded(path: Path) -> Path:
    with TraceWriter(path) as writer:
        for access in skewed_trace(30, num_layers=2, num_experts=64, top_k=4, prompt_every=10):
            writer.record(access.layer, access.experts, access.is_scan)
    return path


def test_the_command_prints_a_row_for_each_size(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache-sim", str(recorded), "--slots", "8,32,128"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["slots", "lru", "scan-lru", "lfu", "belady", "decode-belady"]
    assert [row.split()[0] for row in rows] == ["8", "32", "128"]
    assert "100.0" in rows[2]  # all fit: the prompt that comes first brings them in


def test_the_command_takes_some_policies(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache-sim", str(recorded), "--slots", "8", "--policies", "lfu"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["slots", "lfu"]
    assert main(["cache-sim", str(recorded), "--slots", "8", "--policies", "lfu,mru"]) == 1
    assert "there is no policy 'mru'; there are lru, scan-lru, lfu, belady, decode-belady" in capsys.readouterr().err


@pytest.mark.parametrize("slots", ["", "0", "8,-1", "many", "9" * 20])
def test_the_command_refuses_sizes_that_are_none(
    recorded: Path, slots: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["cache-sim", str(recorded), "--slots", slots])
    assert "is no list of sizes, 1 to 1000000, like 256,512" in capsys.readouterr().err
