"""Names and shapes of every tensor of a model: here without prefix, there as its family's checkpoints write them."""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from edge.config import FULL_ATTENTION, QWEN3_NEXT, ModelConfig
from edge.errors import CheckpointError

PREFIXES = ("model.language_model.", "model.")  # the nested type's, the text type's
LM_HEAD = "lm_head.weight"
MTP_PREFIX = "mtp."  # of the multi-token-prediction layer, in checkpoints beside the prefix and in packs
SKIPPED = {"vision": ("model.visual.", "visual."), "mtp": (MTP_PREFIX,)}


class Role(enum.Enum):
    """How a dense tensor is stored."""

    VECTOR = "vector"  # float32, in its own shape
    KEPT = "kept"  # a matrix in the checkpoint's own precision: small, and routing and gating feel every bit
    QUANTIZED = "quantized"  # a matrix in fewer bits where asked


@dataclass(frozen=True, slots=True)
class DenseTensor:
    """A tensor outside the routed experts. `source` is its name below the prefix, in `source_shape`.

    `runs`: its rows in the source, for one of several that a checkpoint keeps in one tensor; () for all of them.
    """

    name: str
    source: str
    role: Role
    shape: tuple[int, ...]
    source_shape: tuple[int, ...]
    runs: tuple[range, ...] = ()

    @property
    def section(self) -> str:
        """Where it lies in a pack: with all others of its layer, or alone."""
        return "mtp" if self.name.startswith(MTP_PREFIX) else ".".join(self.name.split(".")[:2])


def dense_tensors(config: ModelConfig) -> tuple[DenseTensor, ...]:
    """All of them, in the order in which a pack stores them."""
    return tuple(_dense(config))


def _dense(config: ModelConfig) -> Iterator[DenseTensor]:
    hidden, vocab = config.hidden_size, config.vocab_size
    yield _weight("embed_tokens", Role.QUANTIZED, vocab, hidden)
    for layer in range(config.num_layers):
        yield from _layer(config, layer)
    yield _weight("norm", Role.VECTOR, hidden)
    if not config.tie_embeddings:
        yield _weight("lm_head", Role.QUANTIZED, vocab, hidden)
    if config.num_mtp_layers:  # last, so that a pack without it is the beginning of one with it
        yield from _mtp(config)


def _layer(config: ModelConfig, layer: int) -> Iterator[DenseTensor]:
    prefix, hidden = layer_prefix(config, layer), config.hidden_size
    mixer = _attention if config.all_layer_types[layer] == FULL_ATTENTION else _deltanet
    yield _weight(prefix + "input_layernorm", Role.VECTOR, hidden)
    yield from mixer(config, prefix)
    yield _weight(prefix + "post_attention_layernorm", Role.VECTOR, hidden)
    yield from (_router_and_shared_expert if config.num_experts else _mlp)(config, prefix + "mlp.")


def _mtp(config: ModelConfig) -> Iterator[DenseTensor]:
    hidden = config.hidden_size
    yield _weight("mtp.pre_fc_norm_embedding", Role.VECTOR, hidden)
    yield _weight("mtp.pre_fc_norm_hidden", Role.VECTOR, hidden)
    yield _weight("mtp.fc", Role.QUANTIZED, hidden, 2 * hidden)  # the embedding's columns first
    yield from _layer(config, config.num_layers)
    yield _weight("mtp.norm", Role.VECTOR, hidden)


def layer_prefix(config: ModelConfig, layer: int) -> str:
    """Of a layer's tensors; the MTP layer comes after the last one."""
    return f"layers.{layer}." if layer < config.num_layers else f"mtp.layers.{layer - config.num_layers}."


def _attention(config: ModelConfig, prefix: str) -> Iterator[DenseTensor]:
    prefix += "self_attn."
    hidden, head_dim = config.hidden_size, config.head_dim
    query, kv = config.num_attention_heads * head_dim, config.num_kv_heads * head_dim
    gated = 2 if config.attention_gate else 1  # per head: query, then gate
    yield _weight(prefix + "q_proj", Role.QUANTIZED, gated * query, hidden)
    yield _weight(prefix + "k_proj", Role.QUANTIZED, kv, hidden)
    yield _weight(prefix + "v_proj", Role.QUANTIZED, kv, hidden)
    yield _weight(prefix + "o_proj", Role.QUANTIZED, hidden, query)
    yield _weight(prefix + "q_norm", Role.VECTOR, head_dim)
    yield _weight(prefix + "k_norm", Role.VECTOR, head_dim)


def _deltanet(config: ModelConfig, prefix: str) -> Iterator[DenseTensor]:
    prefix += "linear_attn."
    hidden, heads = config.hidden_size, config.num_value_heads
    value = heads * config.value_head_dim
    channels = 2 * config.num_key_heads * config.key_head_dim + value
    if config.family == QWEN3_NEXT:
        yield from _fused_projections(config, prefix)
    else:
        yield _weight(prefix + "in_proj_qkv", Role.QUANTIZED, channels, hidden)
        yield _weight(prefix + "in_proj_z", Role.QUANTIZED, value, hidden)
        yield _weight(prefix + "in_proj_b", Role.KEPT, heads, hidden)
        yield _weight(prefix + "in_proj_a", Role.KEPT, heads, hidden)
    width = config.conv_width
    conv = prefix + "conv1d"
    yield DenseTensor(conv, conv + ".weight", Role.VECTOR, (channels, width), (channels, 1, width))
    for name in ("dt_bias", "A_log"):  # parameters of their own, without ".weight"
        yield DenseTensor(prefix + name, prefix + name, Role.VECTOR, (heads,), (heads,))
    yield _weight(prefix + "norm", Role.VECTOR, config.value_head_dim)
    yield _weight(prefix + "out_proj", Role.QUANTIZED, hidden, value)


def _fused_projections(config: ModelConfig, prefix: str) -> Iterator[DenseTensor]:
    """The same four as qwen3_next keeps them: in two tensors, the rows that belong to one key head together."""
    heads, served = config.num_key_heads, config.num_value_heads // config.num_key_heads
    key, value = config.key_head_dim, served * config.value_head_dim
    query_rows, key_rows, value_rows, gate_rows = _interleaved(heads, (key, key, value, value))
    beta_rows, decay_rows = _interleaved(heads, (served, served))
    for name, source, role, runs in (
        ("in_proj_qkv", "in_proj_qkvz", Role.QUANTIZED, query_rows + key_rows + value_rows),
        ("in_proj_z", "in_proj_qkvz", Role.QUANTIZED, gate_rows),
        ("in_proj_b", "in_proj_ba", Role.KEPT, beta_rows),
        ("in_proj_a", "in_proj_ba", Role.KEPT, decay_rows),
    ):
        fused = 2 * heads * (key + value) if role is Role.QUANTIZED else 2 * config.num_value_heads
        shape = (sum(map(len, runs)), config.hidden_size)
        full_source = f"{prefix}{source}.weight"
        yield DenseTensor(prefix + name, full_source, role, shape, (fused, config.hidden_size), runs)


def _interleaved(num_heads: int, sizes: tuple[int, ...]) -> Iterator[tuple[range, ...]]:
    """For each part the rows that it has in every head, where a head's parts of `sizes` rows follow each other."""
    starts, stride = [0, *accumulate(sizes)], sum(sizes)
    for start, size in zip(starts, sizes, strict=False):
        yield tuple(range(head * stride + start, head * stride + start + size) for head in range(num_heads))


def _router_and_shared_expert(config: ModelConfig, prefix: str) -> Iterator[DenseTensor]:
    hidden, size = config.hidden_size, config.shared_expert_size
    yield _weight(prefix + "gate", Role.KEPT, config.num_experts, hidden)
    if size:
        yield from _gated_mlp(prefix + "shared_expert.", hidden, size)
        yield _weight(prefix + "shared_expert_gate", Role.KEPT, 1, hidden)


def _mlp(config: ModelConfig, prefix: str) -> Iterator[DenseTensor]:
    yield from _gated_mlp(prefix, config.hidden_size, config.mlp_size)


def _gated_mlp(prefix: str, hidden: int, size: int) -> Iterator[DenseTensor]:
    yield _weight(prefix + "gate_proj", Role.QUANTIZED, size, hidden)
    yield _weight(prefix + "up_proj", Role.QUANTIZED, size, hidden)
    yield _weight(prefix + "down_proj", Role.QUANTIZED, hidden, size)


def _weight(name: str, role: Role, *shape: int) -> DenseTensor:
    return DenseTensor(name, name + ".weight", role, shape, shape)


class Part(enum.Enum):
    """A matrix of a routed expert."""

    GATE = "gate"
    UP = "up"
    DOWN = "down"


def part_shape(config: ModelConfig, part: Part) -> tuple[int, int]:
    """[rows, cols] of one expert's matrix."""
    hidden, size = config.hidden_size, config.expert_size
    return (hidden, size) if part is Part.DOWN else (size, hidden)


def fused_source(config: ModelConfig, layer: int, part: Part) -> str:
    """The tensor that holds this part of all experts of a layer: [E, 2I, H] with gate rows first, or [E, H, I]."""
    return f"{layer_prefix(config, layer)}mlp.experts.{'down_proj' if part is Part.DOWN else 'gate_up_proj'}"


def fused_shape(config: ModelConfig, part: Part) -> tuple[int, int, int]:
    """Of that tensor."""
    rows, cols = part_shape(config, part)
    return (config.num_experts, rows if part is Part.DOWN else 2 * rows, cols)


def single_source(config: ModelConfig, layer: int, expert: int, part: Part) -> str:
    """The tensor that holds this part of one expert."""
    return f"{layer_prefix(config, layer)}mlp.experts.{expert}.{part.value}_proj.weight"


def full_name(source: str) -> str:
    """As a checkpoint of the text type writes a name below the prefix."""
    return source if source == LM_HEAD or source.startswith(MTP_PREFIX) else "model." + source


def skipped_kind(name: str) -> str | None:
    """The key of SKIPPED for a tensor of a part that the engine can do without, None for all others."""
    return next((kind for kind, prefixes in SKIPPED.items() if name.startswith(prefixes)), None)


def below_prefix(names: Iterable[str]) -> dict[str, str]:
    """Names below the prefix → names in the checkpoint; a name without the prefix stands for itself.

    Raises: CheckpointError where two names become one.
    """
    names = list(names)
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in names)), "")
    below: dict[str, str] = {}
    for name in names:
        short = name if skipped_kind(name) else name.removeprefix(prefix)
        if (other := below.setdefault(short, name)) != name:
            raise CheckpointError(f"{other} and {name} name the same tensor")
    return below
