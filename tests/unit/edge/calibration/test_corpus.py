"""Calibration text: what is refused, with which words, and what becomes of the rest."""

import hashlib
from pathlib import Path

import pytest

from edge.calibration import corpus as corpus_module
from edge.calibration.corpus import read_corpus
from edge.errors import CalibrationError
from edge.tokenizer import Tokenizer

VOCABULARY = 512


@pytest.mark.parametrize(
    ("name", "data", "named"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n\t\n", "holds no text"),
        ("a.jsonl", b"\n\n", "holds no text"),
        ("a.txt", b"caf\xe9 secret", "byte 3 is not UTF-8"),
        ("a.txt", b"secret\0text", "not text: it holds zero bytes"),
        ("a.txt", bytes(range(128, 256)), "not text"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": "secret"}', "line 1: not JSON"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": "x"}]}\n["secret"]', "line 2: must be"),
        ("a.jsonl", b'{"messages": []}', "line 1: must be"),
        ("a.jsonl", b'{"messages": "secret"}', "line 1: must be"),
        ("a.jsonl", b'{"messages": [{"role": "secret", "content": "x"}]}', "with roles system, user, assistant, tool"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": 7}]}', "line 1: must be"),
        ("a.jsonl", b'{"text": "secret"}', "line 1: must be"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        (
            "a.jsonl",
            b'{"messages": [{"role": "user", "content": "\\ud800 secret"}]}',
            "line 1: the prompt has characters",
        ),
    ],
)
def test_bad_files_are_named_without_their_text(
    source: Path, tmp_path: Path, name: str, data: bytes, named: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CalibrationError, match=named) as caught:
        read_corpus(tmp_path / name, source, VOCABULARY)
    assert str(tmp_path / name) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"none\.txt: No such file"):
        read_corpus(tmp_path / "none.txt", source, VOCABULARY)
    with pytest.raises(CalibrationError, match="Is a directory"):
        read_corpus(tmp_path, source, VOCABULARY)


def test_a_huge_file_is_refused_unread(source: Path, tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CalibrationError, match="1099511627776 bytes; at most 67108864 are read: take a part"):
        read_corpus(tmp_path / "huge.txt", source, VOCABULARY)


def test_ids_that_the_model_does_not_have_are_told(source: Path, chats: Path) -> None:
    with pytest.raises(CalibrationError, match=r"token with id \d+; the model's ids are 0 to 69: .* of another model"):
        read_corpus(chats, source, 70)


def test_a_model_without_tokenizer_cannot_be_calibrated(source: Path, chats: Path) -> None:
    (source / "tokenizer.json").unlink()
    with pytest.raises(CalibrationError, match=r"has no tokenizer\.json"):
        read_corpus(chats, source, VOCABULARY)


def test_a_count_of_tokens_below_one_is_refused(source: Path, chats: Path) -> None:
    with pytest.raises(CalibrationError, match="0 calibration tokens; must be at least 1"):
        read_corpus(chats, source, VOCABULARY, 0)


def test_each_chat_is_a_sequence_with_its_answers(source: Path, chats: Path) -> None:
    corpus = read_corpus(chats, source, VOCABULARY)
    texts = [Tokenizer.from_dir(source).decode(ids) for ids in corpus.sequences]
    assert len(texts) == 4
    assert all("As you like it." in text for text in texts)
    assert corpus.sha256 == hashlib.sha256(chats.read_bytes()).hexdigest()


def test_no_more_tokens_are_used_than_asked_for(source: Path, chats: Path) -> None:
    whole = read_corpus(chats, source, VOCABULARY)
    most = len(whole.sequences[0]) + 5
    cut = read_corpus(chats, source, VOCABULARY, most)
    assert cut.num_tokens == most
    assert cut.sequences == (whole.sequences[0], whole.sequences[1][:5])


def test_plain_text_is_cut_into_sequences(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 9)
    monkeypatch.setattr(corpus_module, "SEQUENCE_TOKENS", 50)
    corpus = read_corpus(tmp_path / "text.txt", source, VOCABULARY)
    assert {len(ids) for ids in corpus.sequences[:-1]} == {50}
    ids = [token for sequence in corpus.sequences for token in sequence]
    assert Tokenizer.from_dir(source).decode(ids) == "the quick brown fox jumps over the lazy dog\n" * 9
