"""The tokenizer's files: digits alone, every text comes back, and edge reads them."""

from itertools import islice
from pathlib import Path

import pytest

from edge.tokenizer import Tokenizer
from ops.demo.shape import VOCABULARY_SIZE
from ops.demo.tasks import mixture
from ops.demo.text import encode, load_tokenizer
from ops.demo.tokenizer import END_OF_TEXT_ID, SPECIAL_TOKENS, TURN_END_ID


def test_it_fills_the_vocabulary_and_starts_with_the_special_tokens(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    assert tokenizer.get_vocab_size() == VOCABULARY_SIZE
    assert [tokenizer.id_to_token(i) for i in range(3)] == list(SPECIAL_TOKENS)


def test_each_digit_is_a_token_of_its_own(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    assert tokenizer.encode("12345").tokens == list("12345")
    assert not [token for token in tokenizer.get_vocab() if len(token) > 1 and any(sign.isdigit() for sign in token)]


@pytest.mark.parametrize("text", ["3 × 4 = 12", "a  b\n\n c\t", '{"patient": null}', "Ünïcode → 漢字 🙂", "x\r\ny "])
def test_every_text_comes_back(tokenizer_dir: Path, text: str) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_chats_are_encoded_as_the_engine_encodes_them(tokenizer_dir: Path) -> None:
    """Piece by piece here, as one text there, up to every question."""
    engine, tokenizer = Tokenizer.from_dir(tokenizer_dir), load_tokenizer(tokenizer_dir)
    for chat in islice(mixture("encode"), 200):
        encoded = encode(tokenizer, [chat])[0]
        for answered in range(len(chat.turns)):
            prompt = engine.encode_chat(chat.messages(answered))
            assert encoded.ids[: len(prompt)] == prompt
            assert not encoded.is_answer[len(prompt) - 1]
            assert encoded.is_answer[len(prompt)]


def test_the_engine_ends_an_answer_where_training_does(tokenizer_dir: Path) -> None:
    assert Tokenizer.from_dir(tokenizer_dir).eos_token_ids == {TURN_END_ID, END_OF_TEXT_ID}


def test_answers_are_marked_with_their_end(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    for chat in islice(mixture("marks"), 50):
        encoded = encode(tokenizer, [chat])[0]
        said = [i for i, is_answer in zip(encoded.ids, encoded.is_answer, strict=True) if is_answer]
        assert tokenizer.decode(said, skip_special_tokens=False) == "".join(
            f"{turn.answer}<|im_end|>" for turn in chat.turns
        )
