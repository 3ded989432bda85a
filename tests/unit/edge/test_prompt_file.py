"""Files of prompts: what is none is refused by line, without quoting it."""

import json
from pathlib import Path

import pytest

from edge import prompt_file
from edge.chat_template import ChatTemplate
from edge.errors import RequestError
from edge.prompt import PromptEncoder
from edge.prompt_file import read_prompts
from edge.tokenizer import Tokenizer
from tests.unit.edge.text.conftest import CHATML, byte_level

TOKENIZER = Tokenizer(byte_level(), ChatTemplate(CHATML), frozenset())
ENCODER = PromptEncoder(TOKENIZER, 300, 64)
CHAT = {"messages": [{"role": "user", "content": "hi"}], "id": "of no matter"}


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_prompts_and_chats_become_token_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", json.dumps({"prompt": "hi"}), "", json.dumps(CHAT))
    first, second = read_prompts(path, ENCODER)
    assert first == TOKENIZER.encode("hi")
    assert second == TOKENIZER.encode_chat([{"role": "user", "content": "hi"}])
    assert read_prompts(path, ENCODER, limit=1) == [first]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("canary", "p.jsonl:2: not JSON"),
        ("[" * 100_000, "p.jsonl:2: not JSON"),
        ("3", "p.jsonl:2: must be"),
        ("[]", "p.jsonl:2: must be"),
        ("{}", "p.jsonl:2: must be"),
        ('{"prompt": 3}', "p.jsonl:2: must be"),
        ('{"messages": []}', "p.jsonl:2: must be"),
        ('{"messages": "canary"}', "p.jsonl:2: must be"),
        ('{"messages": [{"role": "user"}]}', "p.jsonl:2: must be"),
        ('{"messages": [{"role": "user", "content": ["canary"]}]}', "p.jsonl:2: must be"),
        ('{"messages": [{"role": "canary", "content": "hi"}]}', "p.jsonl:2: a message has an unknown role"),
        ('{"prompt": ""}', "p.jsonl:2: the prompt is empty"),
        (json.dumps({"prompt": "canary " * 100}), "the context holds 64"),
    ],
)
def test_a_line_that_is_no_prompt_is_named_and_not_quoted(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "p.jsonl", '{"prompt": "hi"}', line)
    with pytest.raises(RequestError, match=message) as caught:
        read_prompts(path, ENCODER)
    assert "canary" not in str(caught.value)


def test_a_file_without_a_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"p\.jsonl: holds no prompt"):
        read_prompts(write(tmp_path / "p.jsonl", "", " "), ENCODER)
    with pytest.raises(RequestError, match=r"absent: No such file"):
        read_prompts(tmp_path / "absent", ENCODER)
    (tmp_path / "p.jsonl").write_bytes(b"\xff")
    with pytest.raises(RequestError, match="not UTF-8 at byte 0"):
        read_prompts(tmp_path / "p.jsonl", ENCODER)
    with pytest.raises(RequestError, match="limit is 0"):
        read_prompts(tmp_path / "p.jsonl", ENCODER, limit=0)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_file, "MAX_FILE_BYTES", 10)
    with pytest.raises(RequestError, match="more than 10 bytes"):
        read_prompts(write(tmp_path / "p.jsonl", '{"prompt": "hi"}'), ENCODER)
