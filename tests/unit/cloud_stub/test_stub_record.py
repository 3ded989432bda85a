"""The record: whole lines, one owner, no silence about a write that failed."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from cloud_stub.errors import RecordError, StartError
from cloud_stub.record import Record


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["missing/file", "directory"])
def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(StartError, match=name):
        Record(tmp_path / name)


def test_a_failed_write_is_an_error() -> None:
    record = Record(Path("/dev/full"))
    with pytest.raises(RecordError, match="No space left"):
        record.append({"a": 1})
    record.close()


def test_any_text_survives_as_one_line(tmp_path: Path) -> None:
    path = tmp_path / "record"
    entry = {"text": 'line\nbreak \u2028 "quote" ü \x00 \ud800'}
    record = Record(path)
    record.append(entry)
    record.close()
    assert path.read_bytes().count(b"\n") == 1
    assert json.loads(path.read_bytes()) == entry


def test_an_open_umask_does_not_open_the_record(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Record(tmp_path / "record").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "record").stat().st_mode) == 0o600


def test_a_torn_last_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "record"
    path.write_bytes(b'{"half')
    record = Record(path)
    record.append({"whole": True})
    record.close()
    assert path.read_bytes() == b'{"half\n{"whole": true}\n'


def test_writers_of_two_records_on_one_file_never_mix_lines(tmp_path: Path) -> None:
    path = tmp_path / "record"
    records = [Record(path), Record(path)]

    def write(writer: int) -> None:
        for number in range(40):
            records[writer % 2].append({"writer": writer, "number": number, "padding": "x" * 5000})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for record in records:
        record.close()
    assert {(line["writer"], line["number"]) for line in lines(path)} == {(w, n) for w in range(4) for n in range(40)}
