"""`flashgate-edge logits`: ids as people give them, and a file that is whole or absent."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.commands.logits import parse_ids, write_npy
from edge.errors import RequestError, StorageError


@pytest.mark.parametrize("text", ["a", "1,-2", "1 2,x3", "1.5", "٣", "9" * 5000])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="is not a token id: write them like 1,2,3"):
        parse_ids(text)


def test_ids_come_from_the_command_line_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1, 2,3\n4 5\n")
    assert parse_ids("1,2,3") == [1, 2, 3]
    assert parse_ids(f"@{tmp_path}/ids.txt") == [1, 2, 3, 4, 5]
    with pytest.raises(RequestError, match="No such file"):
        parse_ids(f"@{tmp_path}/none.txt")


def test_a_file_of_ids_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "ids").write_bytes(b"1,\xff")
    with pytest.raises(RequestError, match=r"cannot read the token ids from .*ids: not a text"):
        parse_ids(f"@{tmp_path}/ids")


def test_what_is_no_regular_file_is_never_replaced_by_one(tmp_path: Path) -> None:
    device = tmp_path / "device"
    os.mkfifo(device)
    with pytest.raises(RequestError, match="is no regular file"):
        write_npy(device, (0, 3), iter([]))
    assert device.is_fifo()


def test_a_file_that_could_not_be_finished_does_not_appear(tmp_path: Path) -> None:
    def blocks() -> Iterator[NDArray[np.float32]]:
        yield np.zeros((1, 3), np.float32)
        raise StorageError("the disk")

    with pytest.raises(StorageError):
        write_npy(tmp_path / "out.npy", (2, 3), blocks())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    def blocks() -> Iterator[NDArray[np.float32]]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    with pytest.raises(RequestError, match=r"cannot write .*out.npy: No space left on device"):
        write_npy(tmp_path / "out.npy", (2, 3), blocks())
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot write .*none/out.npy: No such file"):
        write_npy(tmp_path / "none" / "out.npy", (0, 3), iter([]))


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "8"]) == 0
    return work / "pack"


def test_the_file_holds_every_position_whatever_the_cuts(pack_path: Path, tmp_path: Path) -> None:
    ids = ",".join(str(i) for i in range(40))
    common = ["logits", str(pack_path), "--ids", ids, "--memory", "2GB"]
    assert main([*common, "--out", str(tmp_path / "a.npy")]) == 0
    assert main([*common, "--out", str(tmp_path / "b.npy"), "--chunk", "7", "--prompt-tokens", "20"]) == 0
    first = np.load(tmp_path / "a.npy")
    assert first.shape == (40, SMALL.vocab_size)
    assert first.dtype == np.float32
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.parametrize("ids", ["", "1,2,99999", "x"])
def test_bad_ids_end_with_one_line_and_status_1(
    pack_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ids: str
) -> None:
    assert main(["logits", str(pack_path), "--ids", ids, "--out", str(tmp_path / "a.npy")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("flashgate-edge: error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
