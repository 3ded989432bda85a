"""`flashgate-edge prefix clear` removes what was kept, and only that."""

from pathlib import Path

import pytest

from edge.cli import main
from edge.prefix.directory import PrefixDirectory
from edge.prefix.disk import DiskTier
from edge.prefix.keys import PrefixKeys
from tests.unit.edge.prefix.samples import random_snapshot


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A directory with three snapshots of one tenant and one of another."""
    directory = PrefixDirectory(tmp_path / "d")
    tier = DiskTier(directory, PrefixKeys(directory.secret()), b"i" * 32, 10**9)
    for tenant, number in (("alice", 1), ("alice", 2), ("alice", 3), ("", 1)):
        scope = tier.keys.scope(tenant)
        assert tier.save(scope, tier.keys.name(scope, [number]), random_snapshot(20))
    directory.close()
    return tmp_path / "d"


def snapshots(path: Path) -> list[Path]:
    return list(path.glob("*.prefix"))


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prefix", "clear", str(tmp_path / "x")]) == 1
    assert "x: there is no such directory" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_other_files_are_never_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "letter.txt").write_text("dear")
    assert main(["prefix", "clear", str(tmp_path)]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "letter.txt").exists()


def test_what_an_engine_uses_is_not_cleared(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = PrefixDirectory(path)
    assert main(["prefix", "clear", str(path)]) == 1
    assert "an engine uses it: stop it first" in capsys.readouterr().err
    assert len(snapshots(path)) == 4
    directory.close()


def test_all_goes_and_the_secret_with_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prefix", "clear", str(path)]) == 0
    assert capsys.readouterr().out == "removed 4 snapshots\n"
    assert not list(path.iterdir())


def test_a_damaged_secret_can_be_cleared_away(path: Path) -> None:
    (path / "secret").write_bytes(b"short")
    assert main(["prefix", "clear", str(path)]) == 0
    assert not list(path.iterdir())


@pytest.mark.parametrize(("tenant", "said", "left"), [("alice", "3 snapshots", 1), ("", "1 snapshot", 3)])
def test_one_tenant_can_be_forgotten(
    path: Path, capsys: pytest.CaptureFixture[str], tenant: str, said: str, left: int
) -> None:
    assert main(["prefix", "clear", str(path), "--tenant", tenant]) == 0
    assert capsys.readouterr().out == f"removed {said}\n"
    assert len(snapshots(path)) == left
