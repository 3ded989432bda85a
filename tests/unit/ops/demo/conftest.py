"""A tokenizer trained on few chats, for all tests here."""

from itertools import islice
from pathlib import Path

import pytest

from ops.demo.tasks import mixture
from ops.demo.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files of a tokenizer."""
    path = tmp_path_factory.mktemp("tokenizer")
    chats = islice(mixture("test"), 2000)
    train_tokenizer((text for chat in chats for turn in chat.turns for text in (turn.question, turn.answer)), path)
    return path
