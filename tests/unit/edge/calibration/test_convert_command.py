"""`flashgate-edge convert --calibration`: what it prints, the report, and `info` on the result."""

import json
from pathlib import Path

import pytest

from edge.cli import main


def test_the_worst_matrices_are_shown_and_all_are_reported(
    source: Path, tmp_path: Path, chats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "out", tmp_path / "errors.json"
    options = ["--bits", "3", "--calibration", str(chats), "--report", str(report)]
    assert main(["convert", str(source), str(out), *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = json.loads(report.read_text())
    errors = [line["output_error"] for line in lines]
    assert errors == sorted(errors, reverse=True)
    assert {"tensor", "format", "output_error", "weight_error"} <= lines[0].keys()
    experts = next(line for line in lines if "experts" in line)
    assert experts["worst_output_error"] >= experts["output_error"]
    assert 0 <= experts["worst_expert"] < experts["experts"] == 5
    assert printed[1].endswith("relative error on the calibration text")
    assert lines[0]["tensor"] in printed[2]
    assert printed[-1] == f"and {len(lines) - 8} more; --report writes all"
    assert "As you like it" not in report.read_text()


def test_info_says_what_a_pack_was_calibrated_with(
    source: Path, tmp_path: Path, chats: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--bits", "4", "--calibration", str(chats), "--calibration-tokens", "40"]
    assert main(["convert", str(source), str(tmp_path / "out"), *options]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "out")]) == 0
    table = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert table["bits"].strip() == "4, attention 8, group 64"
    assert table["calibration"].strip().startswith("40 tokens of a text with sha256 ")
    assert main(["info", str(tmp_path / "out"), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["calibration"]["tokens"], info["sensitive_bits"]) == (40, 8)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--bits", "3", "--report", "errors.json"], "--report needs --calibration FILE"),
        (["--bits", "3", "--calibration", "CHATS", "--report", "none/errors.json"], "none/errors.json: No such file"),
        (["--calibration", "CHATS"], "16 bits lose nothing"),
        (["--bits", "4", "--calibration", "none.txt"], "none.txt: No such file"),
        (["--bits", "4", "--calibration", "CHATS", "--calibration-tokens", "0"], "0 calibration tokens"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line(
    source: Path, tmp_path: Path, chats: Path, options: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(chats) if option == "CHATS" else option for option in options]
    assert main(["convert", str(source), str(tmp_path / "out"), *given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
