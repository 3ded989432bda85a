"""`--memory` bounds `flashgate-edge eval`, which runs two models side by side."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.budget import parse_bytes
from edge.checkpoint.random_model import write_random_checkpoint
from edge.cli import main
from edge.evaluation.checks import LastNumber
from edge.evaluation.questions import Question, dump_question
from edge.prompt import ChatMessage
from tests.integration.test_memory_bound import CONFIG

BUDGET = "290MB"
PROGRAM = """
import sys
from edge.budget import peak_resident_bytes
from edge.cli import main
status = main(sys.argv[1:])
print(peak_resident_bytes(), file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same model at 16 bits, 161 MB, and at 8, 86 MB."""
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", CONFIG)
    for bits in ("16", "8"):
        assert main(["convert", str(work / "checkpoint"), str(work / bits), "--bits", bits]) == 0
    return [work / "16", work / "8"]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "q.jsonl"
    asked = (ChatMessage("user", "What is 3 + 4?"),)
    path.write_text(dump_question(Question("a", "sums", asked, "3 + 4 = 7", LastNumber("7"))))
    return path


def run(packs: list[Path], questions: Path, memory: str) -> tuple[int, object]:
    """The peak, and what was measured."""
    command = [sys.executable, "-c", PROGRAM, "eval", *map(str, packs), "--questions", str(questions)]
    command += ["--max-tokens", "8", "--memory", memory, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    return int(done.stderr.splitlines()[-1]), [row | {"seconds": 0, "slots": 0} for row in rows]


def test_two_models_stay_under_one_budget_and_say_the_same(packs: list[Path], questions: Path) -> None:
    peak, rows = run(packs, questions, BUDGET)
    assert peak <= parse_bytes(BUDGET)
    peak_with_room, rows_with_room = run(packs, questions, "2GB")
    assert peak_with_room > parse_bytes(BUDGET)  # or the test would prove nothing
    assert rows == rows_with_room
