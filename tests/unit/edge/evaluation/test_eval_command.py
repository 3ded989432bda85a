"""`flashgate-edge eval` over a small random model: what it prints, refuses, keeps and computes again."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.evaluation.checks import Check, LastNumber, SameJson, SameText
from edge.evaluation.measure import measure
from edge.evaluation.measured import Measured
from edge.evaluation.questions import Question, dump_question
from edge.prompt import ChatMessage

CANARY = "canary-7431"
PROCESS_BYTES = 60_000_000  # as engines plan with in tests
QUICK = ("--max-tokens", "5", "--threads", "1", "--memory", "400MB")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "small"
    write_random_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def pack(checkpoint: Path) -> Path:
    path = checkpoint.with_name("pack")
    assert main(["convert", str(checkpoint), str(path), "--bits", "4"]) == 0
    return path


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    def ask(number: int, task: str, reference: str, check: Check) -> str:
        return dump_question(
            Question(f"q{number}", task, (ChatMessage("user", f"{CANARY} {number}"),), reference, check)
        )

    lines = [
        *(ask(number, "sums", f"It is {number}.", LastNumber(str(number))) for number in range(3)),
        ask(3, "records", '{"a": 1}', SameJson('{"a": 1}')),
        ask(4, "words", "milk", SameText("milk")),
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(lines))
    return path


def report(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", *map(str, arguments), *QUICK, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["eval", *map(str, arguments), *QUICK]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert CANARY not in err
    assert err.startswith("flashgate-edge: error: ")
    return err


def test_a_checkpoint_is_measured_at_each_of_some_bits(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, questions: Path
) -> None:
    found = report(capsys, checkpoint, "--questions", questions, "--bits", "16", "4")
    reference, coarse = found["rows"]
    assert (found["reference"], found["questions"]) == ("16 bits", 5)
    assert [row["label"] for row in found["rows"]] == ["16 bits", "4 bits"]
    assert reference["kl"] is None
    assert coarse["kl"]["mean"] > 0.01
    assert 0 < coarse["same_tokens"]["share"] < 1
    assert coarse["nbytes"] < reference["nbytes"] / 2
    assert coarse["json"]["total"] == 1
    assert list(coarse["tasks"]) == ["sums", "records", "words"]


def test_a_cache_of_any_size_changes_nothing(capsys: pytest.CaptureFixture[str], pack: Path, questions: Path) -> None:
    rows = report(capsys, pack, "--questions", questions, "--slots", "9", "60")["rows"]
    assert [(row["slots"], row["identical"]) for row in rows] == [(256, None), (9, True), (60, True)]
    assert [row["kl"] for row in rows[1:]] == [{"mean": 0.0, "error": 0.0}] * 2
    assert [row["same_answers"]["share"] for row in rows[1:]] == [1, 1]


def test_a_cache_that_changes_something_is_a_failure(
    capsys: pytest.CaptureFixture[str], pack: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def altered(variant: Any, *arguments: Any) -> Measured:
        found = measure(variant, *arguments)
        return replace(found, logits_digest="00") if variant.slots else found

    monkeypatch.setattr("edge.evaluation.run.measure", altered)
    capsys.readouterr()
    assert main(["eval", str(pack), "--questions", str(questions), "--limit", "1", "--slots", "60", *QUICK]) == 1
    assert "4 bits, 60 slots: answers and logits ARE NOT byte for byte" in capsys.readouterr().out


def test_calibrated_packs_are_rows_of_their_own(
    capsys: pytest.CaptureFixture[str], questions: Path, tmp_path: Path
) -> None:
    few = replace(SMALL, num_layers=2, layer_types=SMALL.layer_types[2:], num_experts=8, top_k=2)
    write_random_checkpoint(tmp_path / "model", few)
    text = tmp_path / "text.txt"
    text.write_text("It was a dark and stormy night. " * 40)
    arguments = (tmp_path / "model", "--questions", questions, "--limit", "1", "--bits", "2", "--calibration", text)
    found = report(capsys, *arguments, "--work", tmp_path / "work")
    assert [row["label"] for row in found["rows"]] == ["16 bits", "2 bits", "2 bits calibrated"]
    _, nearest, calibrated = found["rows"]
    assert nearest["kl"] != calibrated["kl"]
    text.write_text("Then came the sun. " * 40)
    other = report(capsys, *arguments, "--work", tmp_path / "work")
    assert other["rows"][:2] == found["rows"][:2]
    assert other["rows"][2]["kl"] != calibrated["kl"]


def test_fewer_experts_and_stand_ins_change_answers_and_say_so(
    capsys: pytest.CaptureFixture[str], pack: Path, questions: Path
) -> None:
    arguments = (pack, "--questions", questions, "--limit", "1", "--k", "1", "--substitute", "0.1", "--slots", "9")
    found = report(capsys, *arguments)
    own, fewer, small, substituted = found["rows"]
    assert [row["own_experts"] for row in (own, fewer, small)] == [None] * 3
    assert 0 < substituted["own_experts"] < 1
    assert (fewer["identical"], small["identical"], substituted["identical"]) == (None, True, None)
    assert fewer["kl"]["mean"] > substituted["kl"]["mean"] > 0
    again = report(capsys, *arguments)["rows"][-1]
    assert again | {"seconds": 0} == substituted | {"seconds": 0}  # though what stands in depends on the cache


def test_the_mtp_layer_changes_nothing(capsys: pytest.CaptureFixture[str], questions: Path, tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "model", replace(SMALL, num_mtp_layers=1))
    rows = report(capsys, tmp_path / "model", "--questions", questions, "--limit", "1", "--speculate")["rows"]
    assert [row["identical"] for row in rows] == [None, True]


def test_what_is_finished_is_not_computed_again(
    capsys: pytest.CaptureFixture[str],
    checkpoint: Path,
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = (checkpoint, "--questions", questions, "--bits", "4", "--work", tmp_path / "work", "--limit", "1")
    first = report(capsys, *arguments)
    measured = 0

    def counted(*arguments: Any) -> Measured:
        nonlocal measured
        measured += 1
        return measure(*arguments)

    monkeypatch.setattr("edge.evaluation.run.measure", counted)
    assert report(capsys, *arguments) == first
    assert measured == 0
    more = report(capsys, *arguments, "--slots", "60")
    assert more["rows"][:2] == first["rows"]
    assert measured == 1  # the smaller cache, beside the two that were there
    report(capsys, *arguments, "--tasks", "records")
    assert measured == 3  # other questions


def test_a_model_that_changed_is_measured_anew(
    capsys: pytest.CaptureFixture[str], questions: Path, tmp_path: Path
) -> None:
    model, arguments = tmp_path / "model", ("--questions", questions, "--work", tmp_path / "work", "--limit", "1")
    write_random_checkpoint(model, seed=1)
    first = report(capsys, model, *arguments)
    shutil.rmtree(model)
    write_random_checkpoint(model, seed=2)
    assert report(capsys, model, *arguments)["rows"][0]["perplexity"] != first["rows"][0]["perplexity"]


def test_packs_are_kept_in_a_folder_of_the_user_alone(
    capsys: pytest.CaptureFixture[str],
    checkpoint: Path,
    questions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    arguments = (checkpoint, "--questions", questions, "--limit", "1", "--bits", "4", "2")
    report(capsys, *arguments)
    assert os.listdir(tmp_path / "tmp") == []  # noqa: PTH208 -- a name is enough
    report(capsys, *arguments, "--work", tmp_path / "work")
    assert len([*(tmp_path / "work" / "packs").iterdir()]) == 3


def test_a_text_takes_the_place_of_reference_answers(
    capsys: pytest.CaptureFixture[str], pack: Path, tmp_path: Path
) -> None:
    (tmp_path / "book.txt").write_text("It was a dark and stormy night. " * 40)
    found = report(capsys, pack, "--text", tmp_path / "book.txt", "--text-tokens", "60")
    assert (found["scored"], found["scored_tokens"], found["questions"]) == ("text", 59, 0)
    (row,) = found["rows"]
    assert (row["accuracy"], row["json"]) == (None, None)
    assert row["perplexity"]["value"] > 1


def test_the_table_fits_a_terminal_and_shows_no_text(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, questions: Path
) -> None:
    capsys.readouterr()
    assert main(["eval", str(checkpoint), "--questions", str(questions), "--bits", "16", "2", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 100
    assert CANARY not in out + err
    assert "perplexity" in out
    assert "the reference: 16 bits" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to measure with"),
        (("--questions", "missing.jsonl"), "missing.jsonl: No such file"),
        (("--text", "/dev/null"), "/dev/null: is empty"),
        (("--tasks", "nothing"), "no question is of the task 'nothing'; there are: sums, records, words"),
        (("--limit", "0"), "limit is 0"),
        (("--bits", "4"), "is packed already: --bits and --calibration need its checkpoint"),
        (("--k", "0"), "experts_per_token is 0: it must be at least 1"),
        (("--k", "5"), "experts_per_token is 5: it must be 1 to the model's own 4"),
        (("--substitute", "2"), "substitute is 2.0: it must be above 0 and at most 1"),
        (("--calibration", "missing.txt"), "is packed already: --bits and --calibration need its checkpoint"),
        (("--speculate",), "has no MTP layer: leave --speculate"),
        (("--slots", "0"), "slots is 0"),
        (("--reference", "missing"), "missing"),
        (("--memory", "5MB"), "needs at least"),
        (("--memory", "much"), "'much' is not a size in bytes"),
        (("--threads", "0"), "threads is 0"),
        (("--max-tokens", "0"), "max_tokens is 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], pack: Path, questions: Path, arguments: tuple[str, ...], message: str
) -> None:
    asked = () if arguments in ((), *[("--questions", "missing.jsonl")]) else ("--questions", questions)
    capsys.readouterr()
    assert main(["eval", str(pack), *map(str, asked), *QUICK, *arguments]) == 1
    out, err = capsys.readouterr()
    assert (out, CANARY in err) == ("", False)
    (line,) = [line for line in err.splitlines() if line.startswith("flashgate-edge: error: ")]
    assert message in line


def test_a_missing_model_is_said_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], pack: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.evaluation.run.measure", None)
    assert "missing" in refusal(capsys, pack, tmp_path / "missing", "--questions", questions)


def test_memory_for_one_model_alone_is_too_little_for_two(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.evaluation.run.resident_bytes", lambda: PROCESS_BYTES)
    asked = ("--questions", str(questions), "--max-tokens", "5", "--threads", "1", "--bits", "4")
    capsys.readouterr()
    assert main(["eval", str(checkpoint), *asked, "--memory", "150MB"]) == 1
    err = capsys.readouterr().err
    assert "--memory 150.0 MB is shared by two models, the reference and " in err
    assert "of which one needs at least" in err


def test_a_missing_calibration_text_is_said_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.evaluation.run.measure", None)
    arguments = (checkpoint, "--questions", questions, "--bits", "2", "--calibration", "missing.txt")
    assert "missing.txt: No such file" in refusal(capsys, *arguments)


def test_weights_that_rot_end_the_run_and_leave_nothing_measured(
    capsys: pytest.CaptureFixture[str], pack: Path, questions: Path, tmp_path: Path
) -> None:
    shutil.copytree(pack, tmp_path / "rotten")
    file = tmp_path / "rotten" / "layers" / "000.experts"
    content = bytearray(file.read_bytes())
    content[:: len(content) // 500] = b"\xaa" * len(content[:: len(content) // 500])
    file.write_bytes(content)
    err = refusal(capsys, tmp_path / "rotten", "--questions", questions, "--work", tmp_path / "work")
    assert "checksum" in err
    assert [*(tmp_path / "work").glob("measured*")] == []


def test_models_of_other_tokens_are_not_compared(
    capsys: pytest.CaptureFixture[str], pack: Path, questions: Path, tmp_path: Path
) -> None:
    write_random_checkpoint(tmp_path / "other", replace(SMALL, vocab_size=520))
    err = refusal(capsys, pack, tmp_path / "other", "--questions", questions)
    assert "its tokens are not those of" in err


def test_a_model_without_a_tokenizer_cannot_be_asked(
    capsys: pytest.CaptureFixture[str], questions: Path, tmp_path: Path
) -> None:
    write_random_checkpoint(tmp_path / "mute", tokenizer=False)
    assert "has no tokenizer" in refusal(capsys, tmp_path / "mute", "--questions", questions)
