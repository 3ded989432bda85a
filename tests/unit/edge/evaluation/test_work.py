"""What is kept of finished variants, and what is not believed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.evaluation.measured import Answer, Measured
from edge.evaluation.scoring import PassageScore
from edge.evaluation.work import check_writable, load_measured, save_measured

KEY = {"pack": "ab12", "slots": None}
MEASURED = Measured(
    name="demo",
    bits=3.4,
    is_calibrated=True,
    nbytes=1234,
    slots=7,
    own_experts=0.9,
    seconds=0.1,
    answers=(Answer((5, 6), "é\u2028"), Answer((), "")),
    scores=(PassageScore(3, 0.1 + 0.2, 1e-17, 2),),
    logits_digest="00ff",
)


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    save_measured(tmp_path, KEY, MEASURED)
    assert load_measured(tmp_path, KEY) == MEASURED
    assert len([*tmp_path.iterdir()]) == 1


def test_another_key_is_another_variant(tmp_path: Path) -> None:
    save_measured(tmp_path, KEY, MEASURED)
    assert load_measured(tmp_path, KEY | {"slots": 3}) is None


def test_nothing_is_kept_where_nothing_was_measured(tmp_path: Path) -> None:
    assert load_measured(tmp_path / "missing", KEY) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda _: "",
        lambda _: "[]",
        lambda _: "[" * 100_000,
        lambda text: text.replace("1234", "1235"),
        lambda text: text.replace("ab12", "ab13"),
        lambda text: text.replace('"measured"', '"other"'),
        lambda text: text.encode().hex(),
    ],
)
def test_an_altered_file_is_measured_again(tmp_path: Path, spoil: Callable[[str], str]) -> None:
    save_measured(tmp_path, KEY, MEASURED)
    (file,) = tmp_path.iterdir()
    file.write_text(spoil(file.read_text()))
    assert load_measured(tmp_path, KEY) is None
    save_measured(tmp_path, KEY, MEASURED)
    assert load_measured(tmp_path, KEY) == MEASURED


def test_a_value_of_another_shape_is_no_answer(tmp_path: Path) -> None:
    save_measured(tmp_path, KEY, MEASURED)
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps({"key": KEY, "digest": None, "measured": 3}))
    assert load_measured(tmp_path, KEY) is None


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path / "a" / "b")
    assert [*(tmp_path / "a" / "b").iterdir()] == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            check_writable(path)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge.evaluation.work.json.dump", full)
    with pytest.raises(OSError, match="No space left"):
        save_measured(tmp_path, KEY, MEASURED)
    assert [*tmp_path.iterdir()] == []
