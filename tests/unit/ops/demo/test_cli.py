"""The commands that need no torch."""

from pathlib import Path

import pytest

from ops.demo.cli import main
from ops.demo.text import load_tokenizer


def test_sample_prints_the_same_chats_for_the_same_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--count", "4", "--seed", "x"]) == 0
    first = capsys.readouterr().out
    assert main(["sample", "--count", "4", "--seed", "x"]) == 0
    assert capsys.readouterr().out == first
    assert first.count("-- ") == 4
    assert main(["sample", "--count", "4", "--seed", "x", "--held-out"]) == 0
    assert capsys.readouterr().out != first


def test_help_teaches_the_order_of_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert text.index("ops.demo tokenizer RUN") < text.index("ops.demo train RUN") < text.index("ops.demo evaluate RUN")


def test_a_folder_without_a_tokenizer_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ops[.]demo tokenizer"):
        load_tokenizer(tmp_path)
