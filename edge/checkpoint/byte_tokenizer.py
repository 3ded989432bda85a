"""A small byte-level BPE tokenizer with a ChatML-like template, for models that have no text of their own."""

import json
from itertools import product
from pathlib import Path
from typing import Any

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
VOCABULARY_SIZE = 512  # 256 bytes, 253 merges, 3 special tokens

CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxyz", "aeiou"
SPACE = "Ġ"  # how byte-level BPE spells the byte 32
COMMON = "th er in an on es st nd en al ng ll or ar is ed ch"

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def write_tokenizer(out: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and generation_config.json into `out`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary, merges = _vocabulary(sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.save(str(out / "tokenizer.json"))
    _write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 32768,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    generation = {"eos_token_id": end_token_ids(), "pad_token_id": _special_id(END_OF_TEXT)}
    _write_json(out / "generation_config.json", generation)


def end_token_ids() -> list[int]:
    """The tokens that end an answer."""
    return [_special_id(TURN_END), _special_id(END_OF_TEXT)]


def _special_id(token: str) -> int:
    return VOCABULARY_SIZE - len(SPECIAL_TOKENS) + SPECIAL_TOKENS.index(token)


def _vocabulary(alphabet: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """All bytes, then syllables, so that every id stands for some text and English takes about two bytes a token."""
    merges = [(SPACE, letter) for letter in CONSONANTS + VOWELS]
    merges += product(CONSONANTS, VOWELS)
    merges += [(SPACE + consonant, vowel) for consonant, vowel in product(CONSONANTS, VOWELS)]
    merges += [(pair[0], pair[1]) for pair in COMMON.split()]
    tokens = alphabet + [first + second for first, second in merges]
    return {token: index for index, token in enumerate(tokens)}, merges


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
