"""The calibration set that ships: small, readable by `convert`, and apart from what the examination asks."""

import json
from pathlib import Path

from ops.demo.calibration_set import NUM_CHATS, lines

FOLDER = Path("ops/demo")
MAX_BYTES = 100_000


def test_it_is_small_and_made_of_chats_with_answers() -> None:
    text = (FOLDER / "calibration.jsonl").read_text(encoding="utf-8")
    chats = [json.loads(line)["messages"] for line in text.splitlines()]
    assert len(text.encode()) < MAX_BYTES
    assert len(chats) == NUM_CHATS
    for chat in chats:
        assert [message["role"] for message in chat] == ["user", "assistant"] * (len(chat) // 2)


def test_it_asks_nothing_that_the_examination_asks() -> None:
    examined = [json.loads(line)["messages"] for line in (FOLDER / "questions.jsonl").read_text().splitlines()]
    asked = {chat[-1]["content"] for chat in examined if len(chat) == 1}  # by itself, without an earlier turn
    used = [json.loads(line)["messages"] for line in (FOLDER / "calibration.jsonl").read_text().splitlines()]
    fixed = {chat[0]["content"] for chat in used} & asked
    assert len(fixed) <= 0.1 * len(asked)  # those of flashgate's own tags and of the unknown are the same on both sides
    assert not any(any(letter.isdigit() for letter in question) for question in fixed)


def test_it_is_the_same_every_time() -> None:
    assert lines()[:20] == lines()[:20]
