"""Measures what the machine gives, from the model's own files, while no engine holds the memory."""

import numpy as np

from edge.bench.roofs import Rates, ram_rate
from edge.checkpoint.layout import BLOCK_ALIGNMENT
from edge.checkpoint.matrix import aligned_zeros
from edge.checkpoint.pack import Pack
from edge.experts.disk_probe import READS_AHEAD, BlockFiles, disk_roof

# Of a model without experts: what a layer's stream is read in is of this order.
DENSE_BLOCK_BYTES = 4 * 1024**2
# Far beyond the caches of a CPU, if the budget has room for it.
MOST_RAM_BYTES = 1024**3


def block_files(pack: Pack) -> BlockFiles:
    """The pack's experts; its dense weights if it has none."""
    if pack.config.num_experts:
        return BlockFiles(pack.expert_paths, pack.experts.block_bytes, pack.config.num_experts)
    block = min(DENSE_BLOCK_BYTES, pack.dense_nbytes // BLOCK_ALIGNMENT * BLOCK_ALIGNMENT)
    return BlockFiles((pack.dense_path,), block, pack.dense_nbytes // block)


def machine_rates(pack: Pack, memory_bytes: int, *, seconds: float = 2.0) -> Rates:
    """Disk and RAM, in about `seconds` and a half. Takes at most half of `memory_bytes`, and gives it back."""
    files = block_files(pack)
    blocks = max(1, min(READS_AHEAD, memory_bytes // 4 // files.block_bytes))
    into = aligned_zeros(blocks * files.block_bytes, BLOCK_ALIGNMENT).reshape(blocks, files.block_bytes)
    disk = disk_roof(files, seconds, into)
    memory = aligned_zeros(min(MOST_RAM_BYTES, memory_bytes // 4) // BLOCK_ALIGNMENT * BLOCK_ALIGNMENT, BLOCK_ALIGNMENT)
    memory.fill(np.uint8(1))  # pages that nobody has written to are no memory yet
    return Rates(disk.bytes_per_second, ram_rate(memory))
