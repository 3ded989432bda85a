from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edge.tokenizer import Tokenizer as EdgeTokenizer

TEXT = "hello wörld 👩‍🔬🏳️‍🌈 e\u0301 中文 \u200b नमस्ते \x00"


def pieces(tokenizer: EdgeTokenizer, ids: list[int]) -> list[str]:
    detokenizer = tokenizer.detokenizer()
    return [*(detokenizer.push(token) for token in ids), detokenizer.finish()]


def test_no_piece_holds_half_a_character(byte_level_tokenizer: Tokenizer) -> None:
    tokenizer = EdgeTokenizer(byte_level_tokenizer)
    texts = pieces(tokenizer, tokenizer.encode(TEXT))
    assert "".join(texts) == TEXT
    assert not any("\ufffd" in text for text in texts)


def test_text_comes_as_soon_as_it_is_certain(byte_level_tokenizer: Tokenizer) -> None:
    tokenizer = EdgeTokenizer(byte_level_tokenizer)
    assert pieces(tokenizer, tokenizer.encode("hé中")) == ["h", "", "é", "", "", "中", ""]


def test_a_real_replacement_character_gets_through(byte_level_tokenizer: Tokenizer) -> None:
    tokenizer = EdgeTokenizer(byte_level_tokenizer)
    assert "".join(pieces(tokenizer, tokenizer.encode("a\ufffdb\ufffd"))) == "a\ufffdb\ufffd"


def test_an_answer_cut_inside_a_character_ends_like_a_full_decode(byte_level_tokenizer: Tokenizer) -> None:
    tokenizer = EdgeTokenizer(byte_level_tokenizer)
    ids = tokenizer.encode(TEXT)
    for end in range(len(ids) + 1):
        assert "".join(pieces(tokenizer, ids[:end])) == tokenizer.decode(ids[:end])


def test_bytes_that_stay_broken_do_not_stall_the_stream(byte_level_tokenizer: Tokenizer) -> None:
    tokenizer = EdgeTokenizer(byte_level_tokenizer)
    half = tokenizer.encode("é")[:1]
    texts = pieces(tokenizer, half * 50)
    assert "".join(texts) == "\ufffd" * 50
    assert all(texts[1:])


@given(ids=st.lists(st.integers(0, 270), max_size=60))
def test_any_ids_stream_as_they_decode_at_once(byte_level_tokenizer: Tokenizer, ids: list[int]) -> None:
    tokenizer = EdgeTokenizer(byte_level_tokenizer)
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@given(ids=st.lists(st.integers(0, 275), max_size=40))
def test_any_ids_with_byte_fallback_stream_as_they_decode_at_once(
    byte_fallback_tokenizer: Tokenizer, ids: list[int]
) -> None:
    tokenizer = EdgeTokenizer(byte_fallback_tokenizer)
    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)
