import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import PackError, PromptTooLongError, RequestError
from edge.prompt import ChatMessage, PromptEncoder
from edge.tokenizer import SamplingDefaults, Tokenizer

WriteJson = Callable[[str, object], None]


def test_a_missing_tokenizer_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"tokenizer\.json: no such file"):
        Tokenizer.from_dir(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_a_broken_file_is_named(tokenizer_dir: Path, name: str) -> None:
    (tokenizer_dir / name).write_text("{")
    with pytest.raises(PackError, match=name):
        Tokenizer.from_dir(tokenizer_dir)


def test_a_configuration_that_is_no_object_is_refused(tokenizer_dir: Path, write_json: WriteJson) -> None:
    write_json("tokenizer_config.json", ["chat_template"])
    with pytest.raises(PackError, match="a list instead of an object"):
        Tokenizer.from_dir(tokenizer_dir)


def test_a_chat_template_that_is_no_text_is_refused(tokenizer_dir: Path, write_json: WriteJson) -> None:
    write_json("tokenizer_config.json", {"chat_template": 3})
    with pytest.raises(PackError, match="chat_template is a int"):
        Tokenizer.from_dir(tokenizer_dir)


def test_a_chat_template_that_does_not_compile_is_refused_at_load(tokenizer_dir: Path) -> None:
    (tokenizer_dir / "chat_template.jinja").write_text("{% for %}")
    with pytest.raises(PackError, match="chat template cannot be compiled"):
        Tokenizer.from_dir(tokenizer_dir)


def test_sampling_defaults_that_are_no_numbers_are_refused(tokenizer_dir: Path, write_json: WriteJson) -> None:
    write_json("generation_config.json", {"do_sample": True, "top_p": "all"})
    with pytest.raises(PackError, match="must be numbers"):
        Tokenizer.from_dir(tokenizer_dir)


@pytest.mark.parametrize("value", [{"temperature": -1}, {"top_p": float("nan")}, {"min_p": 2}, {"top_k": 1.5}])
def test_sampling_defaults_out_of_range_are_the_files_fault(
    tokenizer_dir: Path, write_json: WriteJson, value: dict[str, object]
) -> None:
    write_json("generation_config.json", {"do_sample": True, **value})
    with pytest.raises(PackError, match=r"generation_config\.json: .* it must be"):
        Tokenizer.from_dir(tokenizer_dir)


def test_configurations_of_odd_shapes_are_read_or_refused(tokenizer_dir: Path, write_json: WriteJson) -> None:
    write_json("tokenizer_config.json", {"chat_template": [{"name": ["default"], "template": "x"}, 7]})
    write_json("generation_config.json", {"eos_token_id": [{"id": 1}, [2], True, 263]})
    tokenizer = Tokenizer.from_dir(tokenizer_dir)
    assert tokenizer.eos_token_ids == {263}
    assert not tokenizer.has_chat_template
    (tokenizer_dir / "tokenizer_config.json").write_text("[" * 100_000)
    with pytest.raises(PackError, match="tokenizer_config"):
        Tokenizer.from_dir(tokenizer_dir)


def test_text_makes_the_round_trip(tokenizer_dir: Path) -> None:
    tokenizer = Tokenizer.from_dir(tokenizer_dir)
    assert tokenizer.decode(tokenizer.encode("hello wörld 👩‍🔬 é")) == "hello wörld 👩‍🔬 é"


def test_text_with_a_lone_surrogate_is_refused(tokenizer_dir: Path) -> None:
    with pytest.raises(RequestError, match="not valid Unicode"):
        Tokenizer.from_dir(tokenizer_dir).encode("\ud83d")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}}, "canary"),  # raises an Exception
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}}, "a" * 40 + "b"),
    ],
)
def test_a_text_that_the_library_breaks_on_is_refused_without_its_words(
    tokenizer_dir: Path, changes: dict[str, dict[str, object]], text: str
) -> None:
    file = tokenizer_dir / "tokenizer.json"
    content = json.loads(file.read_text())
    for key, value in changes.items():
        content[key] = value | {"invert": False} if key == "pre_tokenizer" else value
    file.write_text(json.dumps(content))
    with pytest.raises(RequestError, match=r"cannot take this text \((Panic)?Exception\)$"):
        Tokenizer.from_dir(tokenizer_dir).encode(text)


def test_ids_beyond_the_vocabulary_read_as_nothing(tokenizer_dir: Path) -> None:
    tokenizer = Tokenizer.from_dir(tokenizer_dir)
    assert tokenizer.decode([*tokenizer.encode("he"), 99_999]) == "he"


def test_special_tokens_stay_out_of_the_text(tokenizer_dir: Path) -> None:
    tokenizer = Tokenizer.from_dir(tokenizer_dir)
    assert tokenizer.decode(tokenizer.encode("he<|im_end|>")) == "he"


def test_a_chat_is_rendered_and_encoded(tokenizer_dir: Path) -> None:
    tokenizer = Tokenizer.from_dir(tokenizer_dir)
    ids = tokenizer.encode_chat([{"role": "user", "content": "hi"}])
    assert ids == tokenizer.encode("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant")


def test_the_template_file_comes_before_the_configuration(tokenizer_dir: Path) -> None:
    (tokenizer_dir / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    tokenizer = Tokenizer.from_dir(tokenizer_dir)
    assert tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": "hi"}])) == "hi!"


def test_of_named_templates_the_default_is_taken(tokenizer_dir: Path, write_json: WriteJson) -> None:
    named = [{"name": "rag", "template": "no"}, {"name": "default", "template": "{{ eos_token }}yes"}]
    write_json("tokenizer_config.json", {"chat_template": named, "eos_token": "<s>"})
    tokenizer = Tokenizer.from_dir(tokenizer_dir)
    assert tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": ""}])) == "<s>yes"


def test_without_a_template_a_chat_is_refused(tokenizer_dir: Path, write_json: WriteJson) -> None:
    write_json("tokenizer_config.json", {})
    tokenizer = Tokenizer.from_dir(tokenizer_dir)
    assert not tokenizer.has_chat_template
    with pytest.raises(RequestError, match="no chat template"):
        tokenizer.encode_chat([{"role": "user", "content": "hi"}])


def test_eos_ids_come_from_both_files(tokenizer_dir: Path, write_json: WriteJson) -> None:
    write_json("generation_config.json", {"eos_token_id": [265, 7]})
    assert Tokenizer.from_dir(tokenizer_dir).eos_token_ids == {264, 265, 7}


def test_sampling_defaults_are_the_makers_own(tokenizer_dir: Path, write_json: WriteJson) -> None:
    write_json("generation_config.json", {"do_sample": True, "top_p": 0.95, "top_k": 20})
    assert Tokenizer.from_dir(tokenizer_dir).defaults == SamplingDefaults(1.0, 0.95, 20, 0.0)


def test_sampling_is_greedy_unless_the_makers_say_otherwise(tokenizer_dir: Path, write_json: WriteJson) -> None:
    write_json("generation_config.json", {"temperature": 0.7})
    assert Tokenizer.from_dir(tokenizer_dir).defaults.temperature == 0.0


class TestPrompts:
    def test_a_model_without_tokenizer_takes_only_ids(self) -> None:
        encoder = PromptEncoder(None, vocab_size=10, context_tokens=4)
        assert encoder.token_ids([0, 9]) == [0, 9]
        with pytest.raises(RequestError, match="no tokenizer: it cannot take a text"):
            encoder.text("hi")
        with pytest.raises(RequestError, match="no tokenizer: it cannot take messages"):
            encoder.chat([ChatMessage("user", "hi")])

    @pytest.mark.parametrize("token", [-1, 10])
    def test_an_id_beyond_the_vocabulary_is_refused(self, token: int) -> None:
        with pytest.raises(RequestError, match=f"token id {token} at position 1: ids are 0 to 9"):
            PromptEncoder(None, 10, 4).token_ids([1, token])

    def test_an_empty_prompt_is_refused(self, tokenizer_dir: Path) -> None:
        encoder = PromptEncoder(Tokenizer.from_dir(tokenizer_dir), 300, 50)
        with pytest.raises(RequestError, match="the prompt is empty"):
            encoder.text("")
        with pytest.raises(RequestError, match="the prompt is empty"):
            encoder.token_ids([])
        with pytest.raises(RequestError, match="no messages"):
            encoder.chat([])

    def test_a_prompt_longer_than_the_context_is_refused(self) -> None:
        encoder = PromptEncoder(None, 10, 4)
        assert encoder.token_ids([1] * 4) == [1] * 4
        with pytest.raises(PromptTooLongError, match="5 tokens: the context holds 4"):
            encoder.token_ids([1] * 5)

    def test_an_unknown_role_is_refused_without_quoting_it(self, tokenizer_dir: Path) -> None:
        with pytest.raises(RequestError, match="unknown role") as caught:
            PromptEncoder(Tokenizer.from_dir(tokenizer_dir), 300, 50).chat([ChatMessage("canary", "hi")])
        assert "canary" not in str(caught.value)

    def test_a_message_does_not_show_its_content(self) -> None:
        assert "canary" not in repr(ChatMessage("user", "canary"))
