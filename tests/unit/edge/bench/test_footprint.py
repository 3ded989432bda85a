"""Memory as the kernel counts it: of a control group of our own if there is one, else of the process."""

import os
from pathlib import Path

import pytest

from edge.bench import footprint as module
from edge.bench.footprint import GROUP, PROCESS, Footprint, footprint
from edge.budget import peak_resident_bytes


def group(root: Path, files: dict[str, str]) -> None:
    root.mkdir(parents=True)
    for name, text in files.items():
        (root / name).write_text(text)


def own_groups(root: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    (root / "proc").write_text(lines)
    monkeypatch.setattr(module, "CGROUPS", root)
    monkeypatch.setattr(module, "OWN_GROUPS", root / "proc")


def test_alone_in_a_group_of_version_1_its_figures_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = "cache 5000\nshmem 2000\nrss 1\n"
    files = {"cgroup.procs": f"{os.getpid()}\n", "memory.max_usage_in_bytes": "9000\n", "memory.stat": stat}
    group(tmp_path / "memory" / "a" / "b", files)
    own_groups(tmp_path, monkeypatch, "2:cpu:/\n1:memory:/a/b\n")
    assert footprint() == Footprint(9000, 3000, GROUP)


def test_alone_in_a_group_of_version_2_its_figures_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"cgroup.procs": f"{os.getpid()}\n", "memory.peak": "9000\n", "memory.stat": "file 5000\nshmem 2000\n"}
    group(tmp_path / "a", files)
    own_groups(tmp_path, monkeypatch, "0::/a\n")
    assert footprint() == Footprint(9000, 3000, GROUP)


@pytest.mark.parametrize(
    "files",
    [
        {"cgroup.procs": f"1\n{os.getpid()}\n", "memory.peak": "1\n", "memory.stat": "file 1\nshmem 0\n"},
        {"cgroup.procs": f"{os.getpid()}\n"},  # does not count memory
        {"cgroup.procs": f"{os.getpid()}\n", "memory.peak": "1\n", "memory.stat": "anon 1\n"},
        {},
    ],
)
def test_otherwise_the_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    group(tmp_path / "a", files)
    own_groups(tmp_path, monkeypatch, "0::/a\n")
    found = footprint()
    assert (found.source, found.page_cache_bytes) == (PROCESS, None)
    assert 0 < found.peak_bytes <= peak_resident_bytes()
