"""Text to token ids and back, by the files that came with the checkpoint: tokenizer.json and its companions."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tokenizers

from edge.chat_template import ChatTemplate
from edge.detokenizer import Detokenizer
from edge.errors import EdgeError, PackError, RequestError
from edge.sampler import SamplingParams

# SentencePiece's byte fallback.
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """How the model's makers want tokens drawn, by its generation_config.json; greedy where that says nothing."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0


class Tokenizer:
    """A model's tokenizer, its chat template (None if it has none) and the ids that end an answer. Thread-safe."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        chat_template: ChatTemplate | None = None,
        eos_token_ids: frozenset[int] = frozenset(),
        defaults: SamplingDefaults | None = None,
    ) -> None:
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._chat_template = chat_template
        self._byte_ids = frozenset(i for token, i in backend.get_vocab().items() if BYTE_TOKEN.fullmatch(token))
        self.eos_token_ids = eos_token_ids
        self.defaults = defaults or SamplingDefaults()

    @classmethod
    def from_dir(cls, path: Path) -> "Tokenizer":
        """Read tokenizer.json and, if there, tokenizer_config.json, chat_template.jinja and generation_config.json.

        Raises: PackError naming the file that is missing or cannot be read.
        """
        config = _read_json(path / "tokenizer_config.json")
        generation = _read_json(path / "generation_config.json")
        backend = _read_backend(path / "tokenizer.json")
        special_tokens = _special_tokens(config)
        source = _chat_template_source(path, config)
        return cls(
            backend,
            None if source is None else ChatTemplate(source, special_tokens),
            _eos_token_ids(backend, special_tokens, generation),
            _sampling_defaults(generation, path / "generation_config.json"),
        )

    @property
    def has_chat_template(self) -> bool:
        return self._chat_template is not None

    def encode(self, text: str) -> list[int]:
        """The ids of a plain prompt, with the special tokens that the tokenizer puts around one.

        Raises: RequestError on text that has no UTF-8 form or that this tokenizer cannot take.
        """
        return self._encode(text, add_special_tokens=True)

    def encode_more(self, text: str) -> list[int]:
        """The ids of a text that follows others: no special tokens around it. Raises: RequestError, as `encode`."""
        return self._encode(text, add_special_tokens=False)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The ids of a chat, ready for the assistant's turn. Raises: RequestError, also by `ChatTemplate.render`."""
        if self._chat_template is None:
            raise RequestError("this model has no chat template: send a text or token ids instead of messages")
        return self._encode(self._chat_template.render(messages), add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` without special tokens; ids beyond the vocabulary read as nothing.

        Raises: PackError if this tokenizer cannot say it.
        """
        with _library_errors(PackError, "the model's tokenizer failed on token ids"):
            return self._backend.decode(list(ids), skip_special_tokens=True)

    def detokenizer(self) -> Detokenizer:
        """A new stream of ids to text."""
        return Detokenizer(self.decode, self._byte_ids)

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RequestError("the prompt has characters that are not valid Unicode text") from None
        with _library_errors(RequestError, "the model's tokenizer cannot take this text"):
            return list(self._backend.encode(text, add_special_tokens=add_special_tokens).ids)


@contextmanager
def _library_errors(kind: type[EdgeError], what: str) -> Iterator[None]:
    """Turns what the library raises into one of ours, without its words: they may quote the text.

    It raises bare Exceptions, and for its panics, which some texts bring about, something that is not even that.
    """
    try:
        yield
    except BaseException as error:
        if not _is_of_library(error):
            raise
        raise kind(f"{what} ({type(error).__name__})") from None


def _is_of_library(error: BaseException) -> bool:
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PackError(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise PackError(f"{path}: holds a {type(content).__name__} instead of an object")
    return content


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise PackError(f"{path}: no such file")
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except BaseException as error:  # as in _library_errors, but these words are about the file
        if not _is_of_library(error):
            raise
        raise PackError(f"{path}: {error}") from error


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and the like, each a text or an object with `content`; transformers offers them to templates."""
    texts = {key: _token_text(value) for key, value in config.items() if key.endswith("_token")}
    return {key: text for key, text in texts.items() if text is not None}


def _token_text(value: object) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _chat_template_source(path: Path, config: Mapping[str, Any]) -> str | None:
    """chat_template.jinja comes before tokenizer_config.json; of several named templates, the one called "default"."""
    file = path / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise PackError(f"{file}: {error}") from error
    source = config.get("chat_template")
    if isinstance(source, list):
        named = (entry for entry in source if isinstance(entry, dict) and entry.get("name") == "default")
        source = next((entry.get("template") for entry in named), None)
    if source is not None and not isinstance(source, str):
        raise PackError(f"{path / 'tokenizer_config.json'}: chat_template is a {type(source).__name__}")
    return source


def _eos_token_ids(
    backend: tokenizers.Tokenizer, special_tokens: Mapping[str, str], generation: Mapping[str, Any]
) -> frozenset[int]:
    named = generation.get("eos_token_id")
    ids = list(named) if isinstance(named, list) else [named]
    if "eos_token" in special_tokens:
        ids.append(backend.token_to_id(special_tokens["eos_token"]))
    return frozenset(i for i in ids if type(i) is int)  # no bool


def _sampling_defaults(generation: Mapping[str, Any], path: Path) -> SamplingDefaults:
    if generation.get("do_sample") is not True:
        return SamplingDefaults()
    named = {key: generation.get(key) for key in ("temperature", "top_p", "top_k", "min_p")}
    given = {key: value for key, value in named.items() if value is not None}
    if not all(isinstance(value, int | float) for value in given.values()):
        raise PackError(f"{path}: temperature, top_p, top_k and min_p must be numbers")
    defaults = SamplingDefaults(**{"temperature": 1.0, **given})
    try:
        SamplingParams(**asdict(defaults))
    except RequestError as error:  # here, where the file is at fault, and not at every request
        raise PackError(f"{path}: {error}") from error
    return defaults
