"""What the engine needs to know of a model. Stored in a pack's manifest; from Hugging Face: checkpoint/hf_config.py."""

import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, get_type_hints

from edge.errors import CheckpointError

FULL_ATTENTION = "full_attention"
LINEAR_ATTENTION = "linear_attention"
QWEN3, QWEN3_MOE, QWEN3_NEXT = "qwen3", "qwen3_moe", "qwen3_next"
QWEN3_5, QWEN3_5_MOE = "qwen3_5_text", "qwen3_5_moe_text"
FAMILIES = (QWEN3, QWEN3_MOE, QWEN3_NEXT, QWEN3_5, QWEN3_5_MOE)
MAX_COUNT = 2**31  # of anything: a damaged file must not send arithmetic out of range
# Of what tables have an entry for each, and no model has nearly as many: a damaged file must not fill the memory.
MAX_LAYERS = 1024
MOST = {
    "num_layers": MAX_LAYERS,
    "num_experts": 4096,
    "num_mtp_layers": 1,  # no released model has more
    **dict.fromkeys(("num_attention_heads", "num_kv_heads", "num_key_heads", "num_value_heads"), 4096),
}

# Fields of which all are above 0 in a model that has such layers, and may be 0 in one that has none.
LINEAR_FIELDS = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_width")
EXPERT_FIELDS = ("num_experts", "top_k", "expert_size")
OPTIONAL_FIELDS = (*LINEAR_FIELDS, *EXPERT_FIELDS, "shared_expert_size", "mlp_size", "num_mtp_layers")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Geometry and constants of a text model. A field out of range raises CheckpointError naming it.

    A field's default is what it was before there was a choice: packs that do not say it are read.
    """

    family: str = QWEN3_5_MOE  # Hugging Face's model_type: how checkpoints name and arrange the same weights
    hidden_size: int
    num_layers: int
    vocab_size: int
    layer_types: tuple[str, ...]  # one per layer: FULL_ATTENTION or LINEAR_ATTENTION
    rms_norm_eps: float
    norm_plus_one: bool = True  # norms multiply by 1 + weight; else by the weight. Not the norm inside a DeltaNet
    # Full attention.
    num_attention_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int  # the first dimensions of a head, which rotate
    rope_theta: float
    attention_gate: bool = True  # q_proj yields per head a query and a gate for the output
    # Linear attention (Gated DeltaNet); 0 in a model without.
    num_key_heads: int = 0
    num_value_heads: int = 0
    key_head_dim: int = 0
    value_head_dim: int = 0
    conv_width: int = 0
    # Mixture of experts in every layer, or (num_experts 0) one plain MLP.
    num_experts: int = 0
    top_k: int = 0  # experts per token
    expert_size: int = 0  # rows of gate and up
    norm_topk: bool = True  # the shares of the chosen experts are scaled to a sum of 1
    shared_expert_size: int = 0  # 0: there is none
    mlp_size: int = 0  # rows of the plain MLP's gate and up
    num_mtp_layers: int = 0  # of full attention, behind the others: they foretell the token after the next one
    tie_embeddings: bool  # lm_head is embed_tokens
    max_positions: int
    eos_token_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise CheckpointError(f"family is {self.family!r}; known: {', '.join(FAMILIES)}")
        for field, kind in get_type_hints(type(self)).items():
            most = MOST.get(field) or {int: MAX_COUNT, float: sys.float_info.max}.get(kind)
            value = getattr(self, field)
            if most is not None and not (0 < value <= most or (field in OPTIONAL_FIELDS and value == 0)):
                raise CheckpointError(f"{field} is {value}; must be above 0 and at most {most}")
        self._check_layers()
        self._check_feed_forward()
        _check_multiple(self, "num_attention_heads", "num_kv_heads")
        _check_at_most(self, "rotary_dim", "head_dim")
        if self.rotary_dim % 2:
            raise CheckpointError(f"rotary_dim is {self.rotary_dim}; must be even, dimensions rotate in pairs")
        # Above the vocabulary is allowed: cut-down test models keep the ids of the real one, which never come up.
        if any(token < 0 for token in self.eos_token_ids):
            raise CheckpointError(f"eos_token_ids {list(self.eos_token_ids)}; none may be negative")

    @property
    def all_layer_types(self) -> tuple[str, ...]:
        """Those of the layers and, behind them, of the MTP layer if there is one: its index is `num_layers`."""
        return self.layer_types + (FULL_ATTENTION,) * self.num_mtp_layers

    @property
    def num_expert_layers(self) -> int:
        """Layers with routed experts of their own, the MTP layer among them."""
        return len(self.all_layer_types) if self.num_experts else 0

    @property
    def total_experts(self) -> int:
        """Routed experts of all layers."""
        return self.num_expert_layers * self.num_experts

    def without_mtp(self) -> "ModelConfig":
        """The same model with nothing behind its last layer."""
        return replace(self, num_mtp_layers=0)

    def _check_layers(self) -> None:
        if len(self.layer_types) != self.num_layers:
            raise CheckpointError(f"layer_types has {len(self.layer_types)} entries for {self.num_layers} layers")
        if unknown := set(self.layer_types) - {FULL_ATTENTION, LINEAR_ATTENTION}:
            raise CheckpointError(f"layer_types holds {sorted(unknown)}; known: {FULL_ATTENTION}, {LINEAR_ATTENTION}")
        if LINEAR_ATTENTION in self.layer_types:
            _check_present(self, LINEAR_FIELDS, "layer_types has linear attention")
            _check_multiple(self, "num_value_heads", "num_key_heads")

    def _check_feed_forward(self) -> None:
        if self.num_experts:
            _check_present(self, EXPERT_FIELDS, "num_experts is above 0")
            _check_at_most(self, "top_k", "num_experts")
            if self.mlp_size:
                raise CheckpointError(f"mlp_size is {self.mlp_size}; must be 0 in a model with experts")
        else:
            _check_present(self, ("mlp_size",), "num_experts is 0")
            if self.top_k or self.expert_size or self.shared_expert_size:
                raise CheckpointError("num_experts is 0; so must be top_k, expert_size and shared_expert_size")

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
        kinds = get_type_hints(cls)
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        unknown, missing = sorted(values.keys() - kinds.keys()), sorted(needed - values.keys())
        if unknown or missing:
            raise CheckpointError(f"config: unknown fields {unknown}, missing fields {missing}")
        return cls(**{name: _typed(name, value, kinds[name]) for name, value in values.items()})


def _typed(name: str, value: Any, kind: Any) -> Any:
    # bool is an int to isinstance, so types are compared exactly; JSON writes a whole float as an int.
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (int, float, bool, str):
        valid = type(value) is kind
    else:
        item = str if kind == tuple[str, ...] else int
        valid = type(value) is list and all(type(entry) is item for entry in value)
    if not valid:
        raise CheckpointError(f"config: {name} is {value!r}; must be {getattr(kind, '__name__', kind)}")
    return tuple(value) if type(value) is list else value


def _check_present(config: ModelConfig, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if not getattr(config, name):
            raise CheckpointError(f"{name} is 0; must be above 0: {why}")


def _check_multiple(config: ModelConfig, many: str, few: str) -> None:
    if getattr(config, many) % getattr(config, few):
        raise CheckpointError(f"{many} is {getattr(config, many)}; must be a multiple of {few} {getattr(config, few)}")


def _check_at_most(config: ModelConfig, less: str, more: str) -> None:
    if getattr(config, less) > getattr(config, more):
        raise CheckpointError(f"{less} is {getattr(config, less)}; must be at most {more} {getattr(config, more)}")
