"""The directory of snapshots is private, ours, and no other one."""

import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from edge.errors import PrefixDirectoryError
from edge.prefix.directory import PrefixDirectory
from edge.prefix.keys import SECRET_BYTES


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def secret_of(path: Path) -> bytes:
    directory = PrefixDirectory(path)
    try:
        return directory.secret()
    finally:
        directory.close()


@pytest.mark.parametrize("open_to", [0o755, 0o770, 0o702, 0o710])
def test_a_directory_open_to_others_is_refused_with_the_remedy(tmp_path: Path, open_to: int) -> None:
    path = tmp_path / "d"
    path.mkdir()
    path.chmod(open_to)
    with pytest.raises(PrefixDirectoryError, match=rf"open to other users \(mode {open_to:o}\): chmod 700 .*/d"):
        PrefixDirectory(path)
    assert not list(path.iterdir())


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d"
    path.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PrefixDirectoryError, match=r"belongs to user \d+: it must be your own"):
        PrefixDirectory(path)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(PrefixDirectoryError, match="link: Not a directory"):
        PrefixDirectory(tmp_path / "link")


def test_a_file_and_a_missing_parent_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PrefixDirectoryError, match="file: Not a directory"):
        PrefixDirectory(tmp_path / "file")
    with pytest.raises(PrefixDirectoryError, match="deeper: No such file or directory"):
        PrefixDirectory(tmp_path / "missing" / "deeper")


def test_a_directory_of_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "documents"
    path.mkdir(mode=0o700)
    (path / "letter.txt").write_text("dear")
    with pytest.raises(PrefixDirectoryError, match="holds other files: name a directory that is empty or new"):
        PrefixDirectory(path)
    assert [entry.name for entry in path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("fault", ["short", "long", "open", "link"])
def test_a_secret_that_was_touched_is_refused_with_the_remedy(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "d"
    secret = secret_of(path)
    file = path / "secret"
    match fault:
        case "short":
            file.write_bytes(secret[:-1])
        case "long":
            file.write_bytes(secret + b"x")
        case "open":
            file.chmod(0o640)
        case "link":
            file.rename(tmp_path / "elsewhere")
            file.symlink_to(tmp_path / "elsewhere")
    message = "secret: Too many" if fault == "link" else "secret is not as it was made: `flashgate-edge prefix clear`"
    with pytest.raises(PrefixDirectoryError, match=message):
        secret_of(path)


def test_what_it_makes_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        secret = secret_of(tmp_path / "d")
    finally:
        os.umask(old)
    assert (mode(tmp_path / "d"), mode(tmp_path / "d" / "secret")) == (0o700, 0o600)
    assert len(secret) == SECRET_BYTES


def test_the_secret_stays_and_is_of_one_directory(tmp_path: Path) -> None:
    assert secret_of(tmp_path / "a") == secret_of(tmp_path / "a") != secret_of(tmp_path / "b")


def test_engines_that_come_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    secrets = list[bytes]()
    barrier = threading.Barrier(6)

    def open_it() -> None:
        barrier.wait()
        secrets.append(secret_of(tmp_path / "d"))

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(secrets) == 6
    assert len(set(secrets)) == 1
    assert [entry.name for entry in (tmp_path / "d").iterdir()] == ["secret"]


def test_many_share_it_but_who_clears_it_must_be_alone(tmp_path: Path) -> None:
    first, second = PrefixDirectory(tmp_path / "d"), PrefixDirectory(tmp_path / "d")
    with pytest.raises(PrefixDirectoryError, match="an engine uses it: stop it first"):
        PrefixDirectory(tmp_path / "d", alone=True)
    first.close()
    second.close()
    alone = PrefixDirectory(tmp_path / "d", alone=True)
    with pytest.raises(PrefixDirectoryError, match="it is being cleared"):
        PrefixDirectory(tmp_path / "d")
    alone.close()


def test_unfinished_files_go_unless_somebody_writes_them(tmp_path: Path) -> None:
    directory = PrefixDirectory(tmp_path / "d")
    dead, alive = (tmp_path / "d" / directory.new_file_name() for _ in range(2))
    dead.touch()
    with alive.open("wb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        directory.remove_unfinished()
    assert (dead.exists(), alive.exists()) == (False, True)
    directory.close()
