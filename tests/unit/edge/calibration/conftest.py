"""A tiny model that can read, and text for it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.checkpoint.random_model import write_random_checkpoint
from tests.unit.edge.checkpoint.samples import TINY

READER = replace(TINY, vocab_size=512, num_mtp_layers=1)  # as many ids as the tokenizer has


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint of READER."""
    path = tmp_path / "tiny-model"
    write_random_checkpoint(path, READER)
    return path


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """Chats of unequal length, some 300 tokens of the tiny model."""
    path = tmp_path / "chats.jsonl"
    questions = ["Sort the words: pear, fig, plum.", "What is 17 plus 25?", "Hello.", "Which day follows Monday? " * 4]
    chat = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "As you like it."}]}
        for question in questions
    ]
    path.write_text("\n".join(map(json.dumps, chat)) + "\n\n")
    return path
