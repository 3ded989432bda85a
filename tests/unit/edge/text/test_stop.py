import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from edge.answer import AnswerStream, Piece
from edge.errors import RequestError
from edge.stop import StopScanner
from edge.tokenizer import Tokenizer


def reference(text: str, stops: list[str]) -> tuple[str, bool]:
    """Character by character, holding nothing back: where does the first stop text come to its end?"""
    for end in range(1, len(text) + 1):
        ended = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(ended)], True
    return text, False


def scanned(pieces: list[str], stops: list[str]) -> tuple[list[str], bool]:
    scanner = StopScanner(stops)
    return [*(scanner.push(piece) for piece in pieces), scanner.finish()], scanner.is_stopped


@pytest.mark.parametrize("stops", [[""], ["a"] * 17, ["a" * 1025]])
def test_malformed_stop_texts_are_refused(stops: list[str]) -> None:
    with pytest.raises(RequestError, match="stop has"):
        StopScanner(stops)


def test_the_longest_possible_tail_is_held_back() -> None:
    scanner = StopScanner(["END."])
    assert [scanner.push(text) for text in ("a E", "N", "D", "E", "ND", ".", "x")] == ["a ", "", "", "END", "", "", ""]
    assert scanner.is_stopped
    assert scanner.finish() == ""


def test_a_tail_that_became_no_stop_text_comes_at_the_end() -> None:
    assert scanned(["a EN"], ["END"]) == (["a ", "EN"], False)


@given(
    text=st.text("ab", max_size=24),
    stops=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
    cuts=st.lists(st.integers(0, 24), max_size=8),
)
def test_the_answer_is_the_same_however_it_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    at = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in itertools.pairwise(at)]
    got, is_stopped = scanned(pieces, stops)
    assert ("".join(got), is_stopped) == reference(text, stops)


def test_every_split_of_one_text() -> None:
    text, stops = "one END two STOP", ["STOP", "END"]
    for cut in range(len(text) + 1):
        got, is_stopped = scanned([text[:cut], text[cut:]], stops)
        assert ("".join(got), is_stopped) == ("one ", True)


class TestAnswerStream:
    def test_an_end_id_ends_the_answer_and_is_left_out(self, byte_level_tokenizer: Backend) -> None:
        tokenizer = Tokenizer(byte_level_tokenizer)
        answer = AnswerStream(tokenizer, ["hell no"], end_ids={264})
        ids = tokenizer.encode("hell")
        texts = [answer.push(token) for token in ids]
        assert [piece.text for piece in texts] == [""] * len(ids)
        assert answer.push(264) == Piece((), "hell", is_last=True)

    def test_a_stop_text_ends_the_answer(self, byte_level_tokenizer: Backend) -> None:
        tokenizer = Tokenizer(byte_level_tokenizer)
        answer = AnswerStream(tokenizer, ["wor"], end_ids=())
        pieces = [answer.push(token) for token in tokenizer.encode("hello world")]
        last = next(i for i, piece in enumerate(pieces) if piece.is_last)
        assert "".join(piece.text for piece in pieces[: last + 1]) == "hello "

    def test_without_a_tokenizer_only_ids_come(self) -> None:
        answer = AnswerStream(None, [], end_ids={2})
        assert [answer.push(1), answer.push(2)] == [Piece((1,), ""), Piece((), "", is_last=True)]
        assert answer.finish() == ""

    def test_without_a_tokenizer_stop_texts_are_refused(self) -> None:
        with pytest.raises(RequestError, match="stop texts cannot be found"):
            AnswerStream(None, ["x"], end_ids=())
