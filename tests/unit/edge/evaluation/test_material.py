"""Questions and texts as token ids: what is scored, and what is refused."""

from pathlib import Path

import pytest

from edge.checkpoint.random_model import write_random_checkpoint
from edge.errors import EvaluationError, RequestError
from edge.evaluation.checks import SameText
from edge.evaluation.passages import WINDOW_TOKENS, question_prompts, read_text, reference_answers, text_windows
from edge.evaluation.questions import Question
from edge.evaluation.texts import Texts, read_texts
from edge.prompt import ChatMessage
from edge.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("model") / "checkpoint"
    write_random_checkpoint(path)
    return Tokenizer.from_dir(path)


def question(reference: str = "It is 4 May.") -> Question:
    return Question("a", "dates", (ChatMessage("user", "Which day?"),), reference, SameText(reference))


def test_only_the_answer_of_a_chat_is_scored(tokenizer: Tokenizer) -> None:
    (prompt,) = question_prompts([question()], tokenizer, 512)
    (passage,) = reference_answers([question()], [prompt], tokenizer)
    assert list(passage.ids[: passage.first]) == prompt
    assert tokenizer.decode(passage.ids[passage.first :]) == "It is 4 May."
    assert passage.num_scored == len(passage.ids) - len(prompt)


def test_windows_hold_a_text_once(tokenizer: Tokenizer) -> None:
    text = "some words " * 1500
    ids = tokenizer.encode_more(text)
    windows = text_windows(text, len(ids), tokenizer)
    assert [token for window in windows for token in window.ids] == ids
    assert [len(window.ids) for window in windows[:-1]] == [WINDOW_TOKENS] * (len(windows) - 1)
    assert {window.first for window in windows} == {1}
    assert sum(window.num_scored for window in text_windows(text, 100, tokenizer)) == 99


def test_a_last_window_of_one_token_is_left_out(tokenizer: Tokenizer) -> None:
    windows = text_windows("some words " * 1500, WINDOW_TOKENS + 1, tokenizer)
    assert [len(window.ids) for window in windows] == [WINDOW_TOKENS]


def test_a_text_of_one_token_cannot_be_scored(tokenizer: Tokenizer) -> None:
    with pytest.raises(EvaluationError, match="fewer than two tokens"):
        text_windows("a", 100, tokenizer)


def test_a_text_is_read_as_far_as_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("é" * 1000, encoding="utf-8")
    assert read_text(tmp_path / "a.txt", 10) == "é" * 160
    assert len(read_text(Path("/dev/zero"), 10)) == 160


@pytest.mark.parametrize(
    ("content", "max_tokens", "message"),
    [
        (None, 10, r"a\.txt: No such file"),
        (b"", 10, r"a\.txt: is empty"),
        (b"\xff\xfe", 10, r"a\.txt: not a text in UTF-8"),
        (b"abc", 1, "text_tokens is 1: it must be at least 2"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes | None, max_tokens: int, message: str) -> None:
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(EvaluationError, match=message):
        read_text(tmp_path / "a.txt", max_tokens)


def test_something_to_measure_with_is_needed() -> None:
    with pytest.raises(EvaluationError, match="nothing to measure with: give --questions, --text or both"):
        read_texts(None, None, tasks=None, limit=None, max_tokens=10, text_tokens=10)
    with pytest.raises(EvaluationError, match="max_tokens is 0: it must be at least 1"):
        Texts((question(),), 0)


def test_what_a_template_refuses_is_said_without_the_text(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "checkpoint")
    config = tmp_path / "checkpoint" / "tokenizer_config.json"
    config.write_text(config.read_text().replace("chat_template", "no_template"))
    with pytest.raises(RequestError, match="no chat template"):
        question_prompts([question()], Tokenizer.from_dir(tmp_path / "checkpoint"), 512)
