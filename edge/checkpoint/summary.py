"""What a pack is, in numbers that follow from its manifest."""

import importlib
import math
from dataclasses import dataclass

from edge.budget import least_memory_bytes, resident_bytes
from edge.checkpoint.contents import Contents
from edge.checkpoint.names import Part, dense_tensors, part_shape
from edge.config import ModelConfig
from edge.dense_sizes import DenseSizes

ENGINE_MODULES = ("edge.engine", "edge.tokenizer", "edge.terminal")


@dataclass(frozen=True, slots=True)
class Parameters:
    """Weights of the text model; `active` are those that one token goes through."""

    total: int
    active: int


def count_parameters(config: ModelConfig) -> Parameters:
    """Embedding and head count as active, as model cards have it, and an MTP layer not at all."""
    config = config.without_mtp()
    dense = sum(math.prod(tensor.shape) for tensor in dense_tensors(config))
    expert = sum(math.prod(part_shape(config, part)) for part in Part)
    return Parameters(
        total=dense + config.num_layers * config.num_experts * expert,
        active=dense + config.num_layers * config.top_k * expert,
    )


def bits_per_weight(contents: Contents) -> dict[str, float]:
    """Of the dense part and, where there are, each matrix of a routed expert and a whole one.

    Scales, biases and padding included.
    """
    experts = contents.experts
    num_dense = sum(math.prod(entry.shape) for entry in contents.dense)
    dense = {"dense": 8 * contents.dense_nbytes / num_dense}
    if experts is None:
        return dense
    shapes = {part: part_shape(contents.config, part) for part in Part}
    return {
        **dense,
        **{part.value: 8 * getattr(experts, part.value).nbytes / math.prod(shape) for part, shape in shapes.items()},
        "expert": 8 * experts.block_bytes / sum(map(math.prod, shapes.values())),
    }


def least_memory(contents: Contents, context_tokens: int) -> int:
    """About the smallest `--memory`, in bytes, that runs the model; an MTP layer is left out before it is refused."""
    contents = contents.without_mtp()
    for module in ENGINE_MODULES:  # so that this process is about as big as one that runs the model
        importlib.import_module(module)
    return least_memory_bytes(
        contents.config, contents.block_bytes, DenseSizes.of(contents).least, resident_bytes(), context_tokens
    )
