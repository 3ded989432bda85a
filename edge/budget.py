"""How `--memory` is shared out: what the process has anyway, weights, state, buffers; the rest holds experts."""

import re
from dataclasses import dataclass
from pathlib import Path

from edge.checkpoint.layout import ExpertLayout
from edge.config import ModelConfig
from edge.errors import BudgetError
from edge.state import conv_channels, state_bytes

FLOAT32_BYTES = 4
MIN_CHUNK_TOKENS = 16
# Logits of several positions are made this much at a time: one position of a vocabulary of 248,320 is 1 MB.
LOGITS_BLOCK_BYTES = 16 * 1024**2
# Interpreter objects, thread stacks, allocator slack.
MARGIN_BYTES = 48 * 1024**2
# The baseline differs from run to run by less than this: a minimum that was quoted must do the next time.
QUOTE_SLACK_BYTES = 4 * 1024**2

_UNITS = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024), ("", 1000))
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str) -> int:
    """ "3GB" to 3,000,000,000, "512MiB" to 536,870,912, "1.5 GB"; a bare number is bytes. Raises BudgetError."""
    match = _SIZE.fullmatch(text)
    units = {name.lower(): size for name, size in _UNITS.items()}
    if match is None or match[2].lower() not in units:
        raise BudgetError(f"{text!r} is not a size in bytes; write it like 3GB, 512MiB or 1500000000")
    return int(float(match[1]) * units[match[2].lower()])


def format_bytes(count: int) -> str:
    """1,234,000,000 to "1.3 GB"; rounded up, so that a limit quoted from it suffices."""
    for unit, name in ((1000**3, "GB"), (1000**2, "MB")):
        if count >= unit:
            tenths = -(-count * 10 // unit)
            return f"{tenths // 10}.{tenths % 10} {name}"
    return f"{-(-count // 1000)} kB"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of each part; their sum is at most the budget."""

    baseline_bytes: int
    dense_bytes: int
    state_bytes: int
    scratch_bytes: int
    expert_bytes: int
    chunk_tokens: int
    num_slots: int

    @property
    def total_bytes(self) -> int:
        """What the process may come to hold."""
        parts = (self.baseline_bytes, self.dense_bytes, self.state_bytes, self.scratch_bytes, self.expert_bytes)
        return sum(parts) + MARGIN_BYTES


def plan_memory(
    config: ModelConfig,
    layout: ExpertLayout,
    *,
    dense_bytes: int,
    baseline_bytes: int,
    memory_bytes: int,
    context_tokens: int,
    chunk_tokens: int,
    most_slots: int | None = None,
) -> MemoryPlan:
    """Share `memory_bytes` out; a tight budget shortens the chunks of a prompt before it is refused.

    Raises BudgetError, with the least that would do, if not even one token's experts of one layer fit.
    """
    fixed = baseline_bytes + dense_bytes + state_bytes(config, context_tokens) + MARGIN_BYTES
    experts = config.top_k * layout.block_bytes
    least = min(chunk_tokens, MIN_CHUNK_TOKENS)
    if fixed + experts + scratch_bytes(config, least) > memory_bytes:
        quote = least_memory_bytes(config, layout, dense_bytes, baseline_bytes, context_tokens, chunk_tokens)
        raise BudgetError(
            f"needs at least {format_bytes(quote)} for this model with a context of {context_tokens}; "
            f"--memory says {format_bytes(memory_bytes)}; lower --context or raise --memory"
        )
    while fixed + experts + scratch_bytes(config, chunk_tokens) > memory_bytes:
        chunk_tokens = max(least, chunk_tokens // 2)
    scratch = scratch_bytes(config, chunk_tokens)
    num_experts = config.num_layers * config.num_experts
    num_slots = min((memory_bytes - fixed - scratch) // layout.block_bytes, most_slots or num_experts, num_experts)
    return MemoryPlan(
        baseline_bytes,
        dense_bytes,
        state_bytes(config, context_tokens),
        scratch,
        num_slots * layout.block_bytes,
        chunk_tokens,
        num_slots,
    )


def least_memory_bytes(
    config: ModelConfig,
    layout: ExpertLayout,
    dense_bytes: int,
    baseline_bytes: int,
    context_tokens: int,
    chunk_tokens: int = MIN_CHUNK_TOKENS,
) -> int:
    """A budget that will do in the next run too, whose baseline may be a little larger."""
    scratch = scratch_bytes(config, min(chunk_tokens, MIN_CHUNK_TOKENS))
    working = state_bytes(config, context_tokens) + scratch + MARGIN_BYTES
    return baseline_bytes + dense_bytes + working + config.top_k * layout.block_bytes + QUOTE_SLACK_BYTES


def scratch_bytes(config: ModelConfig, chunk_tokens: int) -> int:
    """The most that the arrays of a forward pass over `chunk_tokens` tokens take at once, and the logits made of them.

    Counted by hand from edge/layers; tests/integration/test_memory_bound.py holds it against the process's real peak.
    """
    width = config.hidden_size
    value_width = config.num_value_heads * config.value_head_dim
    query_width = config.num_attention_heads * config.head_dim
    mixers = max(
        6 * query_width + 3 * config.num_kv_heads * config.head_dim,
        3 * conv_channels(config) + 4 * value_width,
    )
    routing = 4 * config.num_experts + 16 * config.top_k
    mlp = routing + 4 * max(config.expert_size, config.shared_expert_size) + 4 * width
    chunk = FLOAT32_BYTES * chunk_tokens * (4 * width + max(mixers, mlp))
    return chunk + max(LOGITS_BLOCK_BYTES, 3 * FLOAT32_BYTES * config.vocab_size)


def logits_block_tokens(config: ModelConfig) -> int:
    """How many positions' logits are made at a time."""
    return max(1, LOGITS_BLOCK_BYTES // (FLOAT32_BYTES * config.vocab_size))


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int:
    """The most memory that this process has held."""
    return _status_bytes("VmHWM")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
