"""`flashgate-edge generate` as a real process."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.sampler import SamplingParams
from edge.tokenizer import Tokenizer
from tests.integration.edge_node import ENDLESS, make_pack
from tests.integration.harness import command, eventually

MEMORY = ("--memory", "400MB")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pack_without_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"), tokenizer=False)


@pytest.fixture(scope="module")
def engine(pack: Path) -> Iterator[Engine]:
    engine = Engine.load(pack, EngineOptions(memory_bytes=2_000_000_000))
    yield engine
    engine.close()


def generate(pack: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [command("flashgate-edge"), "generate", str(pack), *MEMORY, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def refused(pack: Path, *arguments: str) -> str:
    done = generate(pack, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("flashgate-edge: error: ")
    return line


def test_the_answer_is_on_stdout_and_the_figures_on_stderr(pack: Path, engine: Engine) -> None:
    tokenizer = Tokenizer.from_dir(pack / "tokenizer")
    ids = tokenizer.encode("Hello there")
    expected = tokenizer.decode(list(engine.generate(ids, SamplingParams(max_tokens=20))))
    done = generate(pack, "--prompt", "Hello there", "--max-tokens", "20")
    assert (done.returncode, done.stdout) == (0, f"{expected}\n")
    for figure in (
        rf"prompt +{len(ids)} tokens, [\d.]+ tokens/s",
        r"decode +20 tokens, [\d.]+ tokens/s",
        r"time to first token [\d.]+ s",
        r"expert cache +[\d.]+% hit rate, [\d.]+ [kMG]B read from disk",
        r"finish reason +length",
    ):
        assert re.search(figure, done.stderr), figure


def test_ids_are_a_prompt_too_and_chat_applies_the_template(pack: Path, engine: Engine) -> None:
    tokenizer = Tokenizer.from_dir(pack / "tokenizer")
    ids = tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
    expected = tokenizer.decode(list(engine.generate(ids, SamplingParams(max_tokens=8))))
    by_chat = generate(pack, "--prompt", "Hello", "--chat", "--max-tokens", "8")
    by_ids = generate(pack, "--ids", ",".join(map(str, ids)), "--max-tokens", "8")
    assert by_chat.stdout == by_ids.stdout == f"{expected}\n"


def test_a_stop_text_ends_the_answer_before_it(pack: Path) -> None:
    whole = generate(pack, "--prompt", "Hello", "--max-tokens", "32").stdout
    stop = next(word for word in whole.split() if len(word) > 1 and whole.index(word) > 3)
    done = generate(pack, "--prompt", "Hello", "--max-tokens", "32", "--stop", "@@@", stop)
    assert done.stdout == whole[: whole.index(stop)] + "\n"
    assert re.search(r"finish reason +stop", done.stderr)


def test_a_model_without_tokenizer_answers_ids_with_ids(pack_without_tokenizer: Path) -> None:
    done = generate(pack_without_tokenizer, "--ids", "1 2 3", "--max-tokens", "5")
    assert done.returncode == 0
    assert [0 <= int(word) < 512 for word in done.stdout.split()] == [True] * 5
    assert "no tokenizer" in refused(pack_without_tokenizer, "--prompt", "Hello")
    assert "stop texts" in refused(pack_without_tokenizer, "--ids", "1", "--stop", "x")


def test_a_seed_repeats_a_sampled_answer(pack: Path) -> None:
    sampled = ("--prompt", "Once", "--max-tokens", "12", "--temperature", "1.5", "--top-k", "50", "--top-p", "0.95")
    answers = [generate(pack, *sampled, "--min-p", "0.01", "--seed", seed).stdout for seed in ("1", "1", "2")]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompt", ""), "empty"),
        (("--prompt", "a", "--max-tokens", "0"), "max_tokens is 0"),
        (("--prompt", "a", "--temperature", "3"), "temperature is 3"),
        (("--prompt", "a", "--stop", ""), "stop"),
        (("--prompt", "word " * 5000), "the context holds 4096"),
        (("--ids", "999999"), "token id 999999"),
        (("--ids", "1", "--chat"), "--chat needs --prompt"),
        (("--prompt", "a", "--memory", "1MB"), "needs at least"),
    ],
)
def test_a_bad_request_is_one_clear_line(pack: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(pack, *arguments)


def test_interrupting_ends_with_the_figures_so_far(pack: Path) -> None:
    argv = [command("flashgate-edge"), "generate", str(pack), *MEMORY, "--prompt", "a", "--max-tokens", str(ENDLESS)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"tokens/s" in stderr
    assert b"Traceback" not in stderr


def test_a_reader_that_goes_away_ends_it_quietly(pack: Path) -> None:
    argv = [command("flashgate-edge"), "generate", str(pack), *MEMORY, "--prompt", "a", "--max-tokens", str(ENDLESS)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1)
    process.stdout.close()
    assert eventually(lambda: process.poll() is not None, "the end of a command that nobody reads")
    assert process.stderr is not None
    with process.stderr:
        assert b"Traceback" not in process.stderr.read()
