"""`trace` records real prompts, and `cache-plot` draws what it recorded."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.experts.trace import Trace, TraceWriter

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint")
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    path.write_text('{"prompt": "one two"}\n{"messages": [{"role": "user", "content": "three"}]}\n', encoding="utf-8")
    return path


def record(pack: Path, prompts: Path, out: Path, *more: str) -> int:
    return main(["trace", str(pack), "--prompts", str(prompts), "--out", str(out), "--max-tokens", "12", *more])


@pytest.fixture(scope="module")
def trace(pack: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "two.trace"
    assert record(pack, prompts, path) == 0
    return path


def test_a_trace_has_one_tokens_choice_per_pass_and_the_guess_of_it(trace: Path) -> None:
    accesses = list(Trace.read(trace))
    assert Trace.read(trace).num_experts == SMALL.num_layers * SMALL.num_experts
    assert [access.layer for access in accesses] == list(range(SMALL.num_layers)) * (len(accesses) // SMALL.num_layers)
    decoded = [access for access in accesses if not access.is_scan]
    assert len(decoded) == 2 * 11 * SMALL.num_layers  # the first token of each answer comes with its prompt
    assert {len(access.experts) for access in decoded} == {SMALL.top_k}
    assert all(len(access.ranks) == (SMALL.top_k if access.layer else 0) for access in decoded)
    assert all(0 <= rank < SMALL.num_experts for access in decoded for rank in access.ranks)


def test_a_trace_does_not_depend_on_memory(pack: Path, prompts: Path, trace: Path, tmp_path: Path) -> None:
    assert record(pack, prompts, tmp_path / "again", "--threads", "1", "--memory", "400MB") == 0
    assert list(Trace.read(tmp_path / "again")) == list(Trace.read(trace))


def test_what_cannot_be_recorded_is_one_clear_line(
    pack: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(pack, tmp_path / "absent", tmp_path / "out") == 1
    assert record(pack, prompts, tmp_path / "no" / "where") == 1
    assert record(pack, prompts, tmp_path / "out", "--max-tokens", "0") == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("flashgate-edge: error: ") for line in lines] == [True] * 3


def test_the_pictures_name_axes_units_and_lines(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache-plot", str(trace), "--out", str(tmp_path / "new"), "--title", "two prompts"]) == 0
    names = [Path(line.removeprefix("wrote ")).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["expert-cache-hit-rate.svg", "prefetch-recall.svg"]
    hits, recall = (
        [element.text or "" for element in ElementTree.parse(tmp_path / "new" / name).iter(f"{SVG}text")]  # noqa: S314
        for name in names
    )
    assert {"experts that fit into RAM (% of 256)", "found in RAM while decoding (%)", "LRU"} <= set(hits)
    labels = {"experts guessed per layer (a token needs 4)", "named by the guess (%)", "of all experts needed"}
    assert labels <= set(recall)
    assert "two prompts: 22 tokens decoded after 2 prompts, 16 look-ups per token" in recall


def test_a_trace_without_guesses_is_refused_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with TraceWriter(tmp_path / "old.trace") as writer:
        writer.record(0, [1, 2], False)
    assert main(["cache-plot", str(tmp_path / "old.trace"), "--out", str(tmp_path)]) == 1
    assert "`flashgate-edge trace` records them" in capsys.readouterr().err
