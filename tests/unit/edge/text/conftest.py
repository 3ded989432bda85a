"""Small tokenizers of the two kinds that matter for streaming: byte-level BPE and SentencePiece-like byte fallback."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WORDS = ("Ġhe", "ell", "he", "Ġw", "or", "ld")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def byte_level() -> Tokenizer:
    """256 byte tokens, a few merges, and the special tokens of ChatML: ids 262 to 264."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("l", "l"), ("e", "ll"), ("Ġ", "he"), ("Ġ", "w"), ("o", "r"), ("l", "d")]
    tokens = [*alphabet, *(left + right for left, right in merges)]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    return backend


def byte_fallback() -> Tokenizer:
    """Llama-like: metaspace words, and single bytes for what it has no token for."""
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefgh", "▁ab", "▁h", "e\u0301"]
    model = models.BPE({t: i for i, t in enumerate(tokens)}, [], unk_token="<unk>", byte_fallback=True)  # noqa: S106 -- no password
    backend = Tokenizer(model)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend


@pytest.fixture(scope="session")
def byte_level_tokenizer() -> Tokenizer:
    return byte_level()


@pytest.fixture(scope="session")
def byte_fallback_tokenizer() -> Tokenizer:
    return byte_fallback()


@pytest.fixture
def tokenizer_dir(tmp_path: Path) -> Path:
    """A model's tokenizer files, as a checkpoint has them."""
    byte_level().save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}, "chat_template": CHATML}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.fixture
def write_json(tokenizer_dir: Path) -> Callable[[str, object], None]:
    def write(name: str, content: object) -> None:
        (tokenizer_dir / name).write_text(json.dumps(content))

    return write
