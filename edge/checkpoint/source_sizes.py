"""Bytes of a checkpoint's weights: what the progress of a conversion is counted in."""

from collections.abc import Collection

from edge.checkpoint.names import Part, dense_tensors
from edge.checkpoint.source import Checkpoint


def dense_bytes(checkpoint: Checkpoint, names: Collection[str] | None = None) -> int:
    """Of all tensors outside the routed experts, or of some."""
    tensors = dense_tensors(checkpoint.config)
    return sum(checkpoint.dense(tensor).nbytes for tensor in tensors if names is None or tensor.name in names)


def layer_bytes(checkpoint: Checkpoint, layer: int) -> int:
    """Of all routed experts of a layer."""
    return sum(expert_bytes(checkpoint, layer, expert) for expert in range(checkpoint.config.num_experts))


def expert_bytes(checkpoint: Checkpoint, layer: int, expert: int) -> int:
    """Of one routed expert."""
    return sum(checkpoint.expert(layer, expert, part).nbytes for part in Part)
