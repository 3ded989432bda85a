"""What the engine needs to know of a model. Stored in a pack's manifest; from Hugging Face: checkpoint/hf_config.py."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

from edge.errors import CheckpointError

FULL_ATTENTION = "full_attention"
LINEAR_ATTENTION = "linear_attention"
MAX_COUNT = 2**31  # of anything: a damaged file must not send arithmetic out of range


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Geometry and constants of a Qwen3.5-MoE text model. A field out of range raises CheckpointError naming it."""

    hidden_size: int
    num_layers: int
    vocab_size: int
    layer_types: tuple[str, ...]  # one per layer: FULL_ATTENTION or LINEAR_ATTENTION
    rms_norm_eps: float
    # Full attention.
    num_attention_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int  # the first dimensions of a head, which rotate
    rope_theta: float
    # Linear attention (Gated DeltaNet).
    num_key_heads: int
    num_value_heads: int
    key_head_dim: int
    value_head_dim: int
    conv_width: int
    # Mixture of experts.
    num_experts: int
    top_k: int  # experts per token
    expert_size: int  # rows of gate and up
    shared_expert_size: int
    tie_embeddings: bool  # lm_head is embed_tokens
    max_positions: int
    eos_token_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for field, kind in get_type_hints(type(self)).items():
            most = {int: MAX_COUNT, float: sys.float_info.max}.get(kind)
            if most is not None and not 0 < getattr(self, field) <= most:
                raise CheckpointError(f"{field} is {getattr(self, field)}; must be above 0 and at most {most}")
        self._check_layers()
        _check_multiple(self, "num_attention_heads", "num_kv_heads")
        _check_multiple(self, "num_value_heads", "num_key_heads")
        _check_at_most(self, "top_k", "num_experts")
        _check_at_most(self, "rotary_dim", "head_dim")
        if self.rotary_dim % 2:
            raise CheckpointError(f"rotary_dim is {self.rotary_dim}; must be even, dimensions rotate in pairs")
        # Above the vocabulary is allowed: cut-down test models keep the ids of the real one, which never come up.
        if any(token < 0 for token in self.eos_token_ids):
            raise CheckpointError(f"eos_token_ids {list(self.eos_token_ids)}; none may be negative")

    def _check_layers(self) -> None:
        if len(self.layer_types) != self.num_layers:
            raise CheckpointError(f"layer_types has {len(self.layer_types)} entries for {self.num_layers} layers")
        if unknown := set(self.layer_types) - {FULL_ATTENTION, LINEAR_ATTENTION}:
            raise CheckpointError(f"layer_types holds {sorted(unknown)}; known: {FULL_ATTENTION}, {LINEAR_ATTENTION}")

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], generation: Mapping[str, Any] | None = None) -> "ModelConfig":
        """From the contents of config.json and, for the end tokens, generation_config.json.

        Raises: CheckpointError naming every unknown, missing, mistyped or unsupported key.
        """
        # Here and not above: the package edge.checkpoint builds on this module.
        from edge.checkpoint.hf_config import read_fields

        return cls(**read_fields(config, generation or {}))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values under the field names."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The reverse of to_json. Raises CheckpointError naming unknown, missing or mistyped fields."""
        names = {field.name for field in fields(cls)}
        if values.keys() != names:
            unknown, missing = sorted(values.keys() - names), sorted(names - values.keys())
            raise CheckpointError(f"config: unknown fields {unknown}, missing fields {missing}")
        kinds = get_type_hints(cls)
        return cls(**{name: _typed(name, values[name], kinds[name]) for name in names})


def _typed(name: str, value: Any, kind: Any) -> Any:
    # bool is an int to isinstance, so types are compared exactly; JSON writes a whole float as an int.
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (int, float, bool):
        valid = type(value) is kind
    else:
        item = str if kind == tuple[str, ...] else int
        valid = type(value) is list and all(type(entry) is item for entry in value)
    if not valid:
        raise CheckpointError(f"config: {name} is {value!r}; must be {getattr(kind, '__name__', kind)}")
    return tuple(value) if type(value) is list else value


def _check_multiple(config: ModelConfig, many: str, few: str) -> None:
    if getattr(config, many) % getattr(config, few):
        raise CheckpointError(f"{many} is {getattr(config, many)}; must be a multiple of {few} {getattr(config, few)}")


def _check_at_most(config: ModelConfig, less: str, more: str) -> None:
    if getattr(config, less) > getattr(config, more):
        raise CheckpointError(f"{less} is {getattr(config, less)}; must be at most {more} {getattr(config, more)}")
