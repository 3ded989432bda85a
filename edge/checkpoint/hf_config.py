"""config.json of a Hugging Face checkpoint, read into the engine's fields and written from them. Keys: hf_keys.py."""

import math
import sys
from collections.abc import Mapping
from typing import Any

from edge.checkpoint.hf_keys import FAMILIES, NESTED, NESTED_KEYS, Alias, Field, Only, Rule
from edge.checkpoint.layout import Format
from edge.config import FULL_ATTENTION, LINEAR_ATTENTION, MAX_COUNT, MAX_LAYERS, ModelConfig
from edge.errors import CheckpointError

DTYPE_NAMES = {Format.F32: "float32", Format.F16: "float16", Format.BF16: "bfloat16"}


def read_fields(config: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ModelConfig, by name, from config.json and generation_config.json.

    Raises: CheckpointError with every problem found, each naming its key.
    """
    return _Reading(config, generation).fields()


class _Reading:
    """One pass over a config: gathers problems so that all are named at once."""

    def __init__(self, config: Mapping[str, Any], generation: Mapping[str, Any]) -> None:
        self._problems: list[str] = []
        self._generation = generation
        self._top = config
        self._where = ""
        model_type = config.get("model_type")
        known = [*FAMILIES, *NESTED]
        if not isinstance(model_type, str) or model_type not in known:
            raise CheckpointError(f"config.json: model_type is {model_type!r}; supported: {', '.join(sorted(known))}")
        self._family = FAMILIES[NESTED.get(model_type, model_type)]
        text = config
        if model_type in NESTED:
            self._check(config, NESTED_KEYS, "")
            text, self._where = self._section(config, "text_config"), "text_config."
        self._text = self._without_aliases(text)

    def fields(self) -> dict[str, Any]:
        where, family = self._where, self._family
        self._check(self._text, {**family.keys, "model_type": Only((family.model_type,))}, where)
        values = {"family": family.model_type, **family.fixed}
        values |= {
            rule.name: self._number(self._text, key, rule.kind, where)
            for key, rule in family.keys.items()
            if isinstance(rule, Field)
        }
        values["layer_types"] = self._layer_types(values["num_layers"])
        values["rotary_dim"], values["rope_theta"] = self._rope(values["head_dim"])
        values["tie_embeddings"] = self._tie()
        values["num_mtp_layers"] = self._mtp_layers()
        values["eos_token_ids"] = self._end_tokens()
        if self._problems:
            raise CheckpointError("config.json: " + "; ".join(self._problems))
        return values

    def _without_aliases(self, text: Mapping[str, Any]) -> dict[str, Any]:
        """The text part with every key in its first spelling."""
        plain: dict[str, Any] = {}
        for key, value in text.items():
            rule = self._family.keys.get(key)
            name = rule.key if isinstance(rule, Alias) else key
            if name != key and name in text:
                self._problems.append(f"{self._where}{key} and {name} name the same number")
            plain[name] = value
        return plain

    def _check(self, section: Mapping[str, Any], rules: Mapping[str, Rule], where: str) -> None:
        for key, value in section.items():
            rule = rules.get(key)
            if rule is None:
                self._problems.append(f"unknown key {where}{key}")
            elif isinstance(rule, Only) and not any(type(value) is type(v) and value == v for v in rule.values):
                allowed = " or ".join(repr(v) for v in rule.values)
                self._problems.append(f"{where}{key} is {value!r}; supported: {allowed}")

    def _section(self, parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        section = parent.get(key)
        if isinstance(section, dict):
            return section
        self._problems.append(f"missing key {key}" if key not in parent else f"{key} is {section!r}; must be an object")
        return {}

    def _number(self, section: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
        value: Any = section.get(key)
        if key not in section:
            self._problems.append(f"missing key {where}{key}")
        elif kind is int and type(value) is int and abs(value) > MAX_COUNT:
            self._problems.append(f"{where}{key} is {value}; at most {MAX_COUNT}")
        elif type(value) is kind:
            return value
        elif kind is float and type(value) is int and abs(value) < sys.float_info.max:
            return float(value)  # JSON writers shorten 1e7 to 10000000
        else:
            self._problems.append(f"{where}{key} is {value!r}; must be {kind.__name__}")
        return 1  # a stand-in so that reading goes on to the other keys; never returned to a caller

    def _layer_types(self, num_layers: int) -> tuple[str, ...]:
        if (types := self._text.get("layer_types")) is not None:
            if isinstance(types, list) and all(isinstance(kind, str) for kind in types):
                return tuple(types)
            self._problems.append(f"layer_types is {types!r}; must be a list of strings")
            return ()
        if num_layers > MAX_LAYERS:
            self._problems.append(f"num_hidden_layers is {num_layers}; at most {MAX_LAYERS}")
            return ()
        if not self._family.is_hybrid:
            return (FULL_ATTENTION,) * num_layers
        if self._text.get("full_attention_interval") is None:
            self._problems.append("missing key layer_types (or full_attention_interval)")
            return ()
        interval = max(1, self._number(self._text, "full_attention_interval", int, ""))
        return tuple(LINEAR_ATTENTION if (i + 1) % interval else FULL_ATTENTION for i in range(num_layers))

    def _rope(self, head_dim: int) -> tuple[int, float]:
        """Rotary dimensions and theta, from rope_parameters or, before transformers 5, from keys beside it."""
        spelled = [key for key in ("rope_parameters", "rope_scaling") if self._text.get(key) is not None]
        nested = next(iter(spelled), None)
        if len(spelled) == 2 and self._text[spelled[0]] != self._text[spelled[1]]:
            self._problems.append("rope_parameters and rope_scaling do not agree")
        rope = dict(self._section(self._text, nested)) if nested else {}
        self._check(rope, self._family.rope_keys, f"{nested}.")
        beside = {key: self._text[key] for key in ("rope_theta", "partial_rotary_factor") if key in self._text}
        rope = beside | rope
        theta: float = self._number(rope, "rope_theta", float, "rope_parameters.")
        if not self._family.is_hybrid:
            return head_dim, theta
        factor = self._number(rope, "partial_rotary_factor", float, "rope_parameters.")
        if not 0 < factor <= 1:  # NaN too
            self._problems.append(f"rope_parameters.partial_rotary_factor is {factor}; must be in 0..1")
            factor = 1.0
        return int(head_dim * factor), theta

    def _tie(self) -> bool:
        # The outer key decides where both stand: that is the one transformers obeys for the nested type.
        for section in (self._top, self._text):
            if (tie := section.get("tie_word_embeddings")) is not None:
                if type(tie) is not bool:
                    self._problems.append(f"tie_word_embeddings is {tie!r}; must be true or false")
                return bool(tie)
        self._problems.append("missing key tie_word_embeddings")
        return False

    def _mtp_layers(self) -> int:
        """One, or none of those that the engine could run."""
        if not self._family.is_hybrid:
            return 0
        has_embeddings = self._text.get("mtp_use_dedicated_embeddings")
        if has_embeddings is not None and type(has_embeddings) is not bool:
            self._problems.append(f"mtp_use_dedicated_embeddings is {has_embeddings!r}; must be true or false")
        if self._text.get("mtp_num_hidden_layers") is None:
            stated = self._family.num_mtp_layers
        else:
            stated = self._number(self._text, "mtp_num_hidden_layers", int, self._where)
        return int(stated == 1 and not has_embeddings)

    def _end_tokens(self) -> tuple[int, ...]:
        """generation_config.json first: there stand the end of a turn and the end of a text, here often only one."""
        for section in (self._generation, self._text, self._top):
            if (tokens := section.get("eos_token_id")) is not None:
                tokens = tokens if isinstance(tokens, list) else [tokens]
                if not all(type(token) is int for token in tokens):
                    self._problems.append(f"eos_token_id is {tokens!r}; must be whole numbers")
                return tuple(tokens)
        return ()


def write_config(config: ModelConfig, form: str) -> dict[str, Any]:
    """A config.json of the text type that says `config`; `form` is the dtype's name there, such as bfloat16."""
    family = FAMILIES[config.family]
    values = {key: getattr(config, rule.name) for key, rule in family.keys.items() if isinstance(rule, Field)}
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if family.is_hybrid:
        rope["partial_rotary_factor"] = _rotary_factor(config)
        values["mtp_num_hidden_layers"] = config.num_mtp_layers
    return {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "dtype": form,
        "hidden_act": "silu",
        "attention_bias": False,
        **values,
        "layer_types": list(config.layer_types),
        "rope_parameters": rope,
        "tie_word_embeddings": config.tie_embeddings,
        "eos_token_id": list(config.eos_token_ids) or None,
    }


def _rotary_factor(config: ModelConfig) -> float:
    factor = config.rotary_dim / config.head_dim
    while int(config.head_dim * factor) < config.rotary_dim:  # a factor that rounding took just below
        factor = math.nextafter(factor, 2)
    return factor
