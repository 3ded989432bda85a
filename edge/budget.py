"""How `--memory` is shared out: what the process has anyway, weights, state, buffers; the rest holds experts."""

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge.batch import BLOCK_ROWS
from edge.checkpoint.layout import ExpertLayout
from edge.config import ModelConfig
from edge.dense_sizes import RING_SLOTS, DenseSizes
from edge.errors import BudgetError
from edge.prefix.snapshot import snapshot_bytes
from edge.state import FLOAT32_BYTES, MOST_BEHIND, conv_channels, delta_bytes, fixed_bytes, kv_token_bytes

PAGE_BYTES = 4096
MIN_CHUNK_TOKENS = 16
DEFAULT_CHUNK_TOKENS = 512
MAX_CHUNK_TOKENS = 4096
MAX_SEQUENCES = 8  # of the planner's own choice: with more, each waits longer for its tokens
# Logits of several positions are made this much at a time: one position of a vocabulary of 248,320 is 1 MB.
LOGITS_BLOCK_BYTES = 16 * 1024**2
# What drawing one token holds, in rows of logits: 10.3 measured, with all filters on and float64 inside.
DRAWING_ROWS = 11
# Interpreter objects, thread stacks, allocator slack.
MARGIN_BYTES = 48 * 1024**2
# The baseline differs from run to run by less than this: a minimum that was quoted must do the next time.
QUOTE_SLACK_BYTES = 4 * 1024**2

_UNITS = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024), ("", 1000))
}
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*")


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
    prefix_bytes: int  # for snapshots of prompts' beginnings
    chunk_tokens: int  # of a prompt, computed in one pass
    num_slots: int
    num_sequences: int  # that can run at once
    kv_tokens: int  # that all of them together can hold
    streamed_layers: tuple[int, ...] = ()  # whose matrices pass through a ring of slots, read in every pass
    ring_slots: int = 0
    dense_streamed_bytes: int = 0  # read in every pass
    head_streams: bool = False  # like the layers, some rows at a time
    embedding_on_disk: bool = False  # only the rows that are needed are read

    @property
    def total_bytes(self) -> int:
        """What the process may come to hold."""
        working = self.state_bytes + self.scratch_bytes + self.prefix_bytes + MARGIN_BYTES
        return self.baseline_bytes + self.dense_bytes + self.expert_bytes + working


def plan_memory(
    config: ModelConfig,
    layout: ExpertLayout | None,
    *,
    dense: DenseSizes,
    baseline_bytes: int,
    memory_bytes: int,
    context_tokens: int,
    chunk_tokens: int | None = None,
    most_slots: int | None = None,
    max_sequences: int | None = None,
    prefix_bytes: int | None = 0,
    draft_tokens: int = 0,
) -> MemoryPlan:
    """Share `memory_bytes` out; what is not wished for (None) is chosen by the rules of `_Room`.

    Every dense weight is used for every token, an expert for some: layers stream from disk only where they do not fit
    beside one token's experts of one layer. An embedding stays on disk as soon as something else would have to: a token
    needs one row of it. A tight budget shortens the chunks of a prompt, wished for or not, before it is refused.

    `layout` is None for a model without routed experts. `draft_tokens`: guesses for a sequence in one pass, each of
    which takes a row and a copy of the DeltaNet states. Raises BudgetError, with the least that would do, if not even
    that fits.
    """

    plan = partial(
        _plan,
        config,
        layout.block_bytes if layout else 0,
        baseline_bytes=baseline_bytes,
        memory_bytes=memory_bytes,
        context_tokens=context_tokens,
        chunk_tokens=chunk_tokens,
        most_slots=most_slots,
        max_sequences=max_sequences,
        prefix_bytes=prefix_bytes,
        draft_tokens=draft_tokens,
    )
    if not dense.embedding:
        return plan(dense)
    with suppress(BudgetError):
        whole = plan(replace(dense, embedding=0))  # in RAM like the rest, and not to be left out of it
        if not whole.streamed_layers and whole.num_slots == config.total_experts:
            return whole
    return replace(plan(dense.without_embedding()), embedding_on_disk=True)


def _plan(
    config: ModelConfig,
    block_bytes: int,
    dense: DenseSizes,
    *,
    baseline_bytes: int,
    memory_bytes: int,
    context_tokens: int,
    chunk_tokens: int | None,
    most_slots: int | None,
    max_sequences: int | None,
    prefix_bytes: int | None,
    draft_tokens: int,
) -> MemoryPlan:
    """As plan_memory, with the embedding where `dense` says: counted in its total, or not."""
    num_experts = config.total_experts
    rest = memory_bytes - baseline_bytes - MARGIN_BYTES
    least_chunk = min(chunk_tokens or MIN_CHUNK_TOKENS, MIN_CHUNK_TOKENS)

    def room_beside(dense_bytes: int, prefix_bytes: int) -> _Room:
        wanted = num_experts * block_bytes + dense.total - dense_bytes
        return _Room(config, block_bytes, context_tokens, draft_tokens, rest - dense_bytes - prefix_bytes, wanted)

    def fits(dense_bytes: int, prefix_bytes: int) -> bool:
        return room_beside(dense_bytes, prefix_bytes).fits(max_sequences or 1, least_chunk)

    dense_bytes = dense.total if fits(dense.total, prefix_bytes or 0) else dense.least
    if prefix_bytes is None:
        prefix_bytes = sensible_prefix_bytes(config, memory_bytes, context_tokens)
        if not fits(dense_bytes, prefix_bytes):
            prefix_bytes = 0
    room = room_beside(dense_bytes, prefix_bytes)
    if not room.fits(max_sequences or 1, least_chunk):
        quote = least_memory_bytes(
            config,
            block_bytes,
            dense_bytes + prefix_bytes,
            baseline_bytes,
            context_tokens,
            least_chunk,
            max_sequences or 1,
            draft_tokens,
        )
        together = f", {max_sequences} at a time" if max_sequences else ""
        raise BudgetError(
            f"needs at least {format_bytes(quote)} for this model with a context of {context_tokens}{together}; "
            f"--memory says {format_bytes(memory_bytes)}; lower --context or raise --memory"
        )
    num_sequences = max_sequences or room.sensible_sequences(least_chunk)
    chunk = room.shortened(chunk_tokens or DEFAULT_CHUNK_TOKENS, least_chunk, num_sequences)
    if chunk_tokens is None:
        chunk = room.lengthened(chunk, num_sequences)
    states = state_bytes(config, num_sequences, context_tokens, draft_tokens)
    scratch = scratch_bytes(config, chunk, num_sequences, draft_tokens)
    left = room.size - states - scratch
    streaming = dense.streaming(dense_bytes + left - config.top_k * block_bytes)
    left -= dense.resident(streaming) - dense_bytes
    num_slots = min(num_experts, most_slots or num_experts)
    if num_slots:
        num_slots = min(num_slots, left // block_bytes)
    return MemoryPlan(
        baseline_bytes=baseline_bytes,
        dense_bytes=dense.resident(streaming),
        state_bytes=states,
        scratch_bytes=scratch,
        expert_bytes=num_slots * block_bytes,
        prefix_bytes=prefix_bytes,
        chunk_tokens=chunk,
        num_slots=num_slots,
        num_sequences=num_sequences,
        kv_tokens=pool_tokens(num_sequences, context_tokens),
        streamed_layers=streaming.layers,
        ring_slots=RING_SLOTS if streaming.layers else 0,
        dense_streamed_bytes=dense.streamed_bytes(streaming),
        head_streams=streaming.head,
        embedding_on_disk=streaming.head and config.tie_embeddings,
    )


@dataclass(frozen=True, slots=True)
class _Room:
    """What is left for states, scratch, experts and layers that would otherwise stream, and how to divide it.

    A weight that gives way to a state or to scratch is read from disk again and again. So the states of all places
    may take an eighth of the room, or what is left beside all weights, and a chunk longer than the usual one an eighth
    more scratch: an eighth fewer experts costs a single request at most an eighth of its speed. A place more lets
    another request share each read, and a chunk twice as long halves the reads of a long prompt: beyond about 100
    tokens a chunk reads nearly all experts of each layer however short it is (measured: edge/EXPERIMENTS.md). Where all
    experts are in RAM a longer chunk gains nothing.
    """

    config: ModelConfig
    block_bytes: int  # of an expert
    context_tokens: int
    draft_tokens: int
    size: int  # bytes
    wanted: int  # bytes of all weights that could be in RAM beside states and scratch

    def fits(self, num_sequences: int, chunk_tokens: int) -> bool:
        """Whether there is room beside them for one token's experts of one layer."""
        experts = self.config.top_k * self.block_bytes
        return self._states(num_sequences) + self._scratch(chunk_tokens, num_sequences) + experts <= self.size

    def sensible_sequences(self, least_chunk: int) -> int:
        """How many places there should be."""
        number = 1
        while number < MAX_SEQUENCES and self.fits(number + 1, least_chunk):
            spare = self.size - self.wanted - self._scratch(DEFAULT_CHUNK_TOKENS, number + 1)
            if self._states(number + 1) > max(self.size // 8, spare):
                break
            number += 1
        return number

    def shortened(self, chunk_tokens: int, least_chunk: int, num_sequences: int) -> int:
        """A chunk that fits: halved until it does."""
        while not self.fits(num_sequences, chunk_tokens):
            chunk_tokens = max(least_chunk, chunk_tokens // 2)
        return chunk_tokens

    def lengthened(self, chunk_tokens: int, num_sequences: int) -> int:
        """A chunk as long as is worth its scratch: doubled as long as that is cheap."""
        scratch, states = self._scratch(chunk_tokens, num_sequences), self._states(num_sequences)
        if states + scratch + self.wanted <= self.size:
            return chunk_tokens
        most, usual = min(MAX_CHUNK_TOKENS, self.context_tokens), self._scratch(DEFAULT_CHUNK_TOKENS, num_sequences)
        while (
            chunk_tokens < most
            and self.fits(num_sequences, 2 * chunk_tokens)
            and self._scratch(2 * chunk_tokens, num_sequences) <= usual + self.size // 8
        ):
            chunk_tokens *= 2
        return chunk_tokens

    def _states(self, num_sequences: int) -> int:
        return state_bytes(self.config, num_sequences, self.context_tokens, self.draft_tokens)

    def _scratch(self, chunk_tokens: int, num_sequences: int) -> int:
        return scratch_bytes(self.config, chunk_tokens, num_sequences, self.draft_tokens)


def least_memory_bytes(
    config: ModelConfig,
    block_bytes: int,
    dense_bytes: int,
    baseline_bytes: int,
    context_tokens: int,
    chunk_tokens: int = MIN_CHUNK_TOKENS,
    num_sequences: int = 1,
    draft_tokens: int = 0,
) -> int:
    """A budget that will do in the next run too, whose baseline may be a little larger.

    `block_bytes` is the size of an expert, 0 without; `dense_bytes` what has to be in RAM of the other weights.
    """
    scratch = scratch_bytes(config, min(chunk_tokens, MIN_CHUNK_TOKENS), num_sequences, draft_tokens)
    working = state_bytes(config, num_sequences, context_tokens, draft_tokens) + scratch + MARGIN_BYTES
    return baseline_bytes + dense_bytes + working + config.top_k * block_bytes + QUOTE_SLACK_BYTES


def sensible_prefix_bytes(config: ModelConfig, memory_bytes: int, context_tokens: int) -> int:
    """What snapshots of prompts are worth: a twentieth of the memory, or nothing where that holds no full context."""
    share = memory_bytes // 20
    return share if share >= snapshot_bytes(config, context_tokens) else 0


def pool_tokens(num_sequences: int, context_tokens: int) -> int:
    """Tokens that all sequences together can hold: one may fill its context while the others fill half of theirs."""
    return context_tokens + (num_sequences - 1) * (context_tokens // 2)


def state_bytes(config: ModelConfig, num_sequences: int, context_tokens: int, draft_tokens: int = 0) -> int:
    """The most that the states of all places take, every place used and the pool of KV memory full.

    DeltaNet states are there once more for each guess of a pass.
    """
    full_pages = 2 * num_sequences * config.all_layer_types.count("full_attention") * PAGE_BYTES  # each cache's last
    kv = pool_tokens(num_sequences, context_tokens) * kv_token_bytes(config)
    return num_sequences * (fixed_bytes(config) + draft_tokens * delta_bytes(config)) + kv + full_pages


def scratch_bytes(config: ModelConfig, chunk_tokens: int, num_sequences: int, draft_tokens: int = 0) -> int:
    """The most that the arrays of a pass take at once: a prompt's chunk, a row of each sequence, and their logits.

    A sequence with guesses has a row more for each.

    Counted by hand from edge/layers; tests/integration/test_memory_bound.py holds it against the process's real peak.
    """
    decoded = num_sequences * (1 + draft_tokens)
    width, rows = config.hidden_size, chunk_tokens + decoded
    value_width = config.num_value_heads * config.value_head_dim
    query_width = config.num_attention_heads * config.head_dim
    blocks = 4 * width + max(
        3 * config.mlp_size,
        6 * query_width + 3 * config.num_kv_heads * config.head_dim,
        3 * conv_channels(config) + 4 * value_width,
    )
    routing = 4 * config.num_experts + 16 * config.top_k
    # In the worst case all rows choose the same expert.
    mlp = 6 * width + routing + 4 * max(config.expert_size, config.shared_expert_size)
    decoding = decoded * config.top_k * (2 * width + 3 * config.expert_size)
    logits = max(LOGITS_BLOCK_BYTES // FLOAT32_BYTES, (decoded + DRAWING_ROWS) * config.vocab_size)
    behind = num_sequences * MOST_BEHIND * width if draft_tokens else 0
    return FLOAT32_BYTES * (min(rows, BLOCK_ROWS) * blocks + rows * mlp + decoding + logits + behind)


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
