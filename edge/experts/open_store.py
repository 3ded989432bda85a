"""Puts an expert store together for a packed model."""

from dataclasses import asdict, dataclass

import structlog

from edge.checkpoint.pack import Pack
from edge.experts.gate import Gates
from edge.experts.policies import DecayedLfu
from edge.experts.slots import Verify
from edge.experts.store import ExpertStore
from edge.experts.tuning import MAX_QUEUE_DEPTH, USUAL, ReadSetting, Tuning, probe
from edge.kernels import ExpertReader

log = structlog.get_logger()

# Parts of reads on a guess under way at once: 0.95 of the disk's rate, and what the next demand waits for is short.
GUESS_DEPTH = 4
LEAST_PROBED_BYTES = 1_000_000_000  # a smaller model is read within a second or two


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How experts are read and checked."""

    verify: Verify = "always"
    prefetch: bool = False  # read ahead what the next layer is guessed to need, while the disk idles
    reading: ReadSetting | None = None  # None: chosen by a probe at start
    probe_seconds: float = 0.4


def open_store(pack: Pack, num_slots: int, options: StoreOptions) -> ExpertStore:
    """A store with empty slots. Raises StorageError if a file cannot be opened or, in the probe, read."""
    config = pack.config
    reader = ExpertReader(pack.expert_paths, threads=MAX_QUEUE_DEPTH)
    store = ExpertStore(
        pack,
        num_slots,
        reader,
        DecayedLfu.for_passes(config.num_layers * config.top_k),
        verify=options.verify,
        gates=Gates() if options.prefetch else None,
        holds_all=num_slots == config.total_experts,
    )
    try:
        tuning = _tuned(pack, reader, store, options)
    except BaseException:
        store.close()
        raise
    setting = tuning.setting
    reader.tune(setting.queue_depth, setting.part_bytes, GUESS_DEPTH)
    if tuning.origin != "usual":
        rate = round(tuning.bytes_per_second)
        log.info("disk_reads_tuned", origin=tuning.origin, bytes_per_second=rate, **asdict(setting))
    return store


def _tuned(pack: Pack, reader: ExpertReader, store: ExpertStore, options: StoreOptions) -> Tuning:
    config = pack.config
    num_experts = config.total_experts
    if options.reading is not None:
        return Tuning(options.reading, "stated")
    is_small = num_experts * pack.experts.block_bytes < LEAST_PROBED_BYTES
    if is_small or store.num_slots == num_experts:  # hardly a read will be waited for
        return Tuning(USUAL, "usual")
    blocks = [
        (layer, expert * pack.experts.block_bytes)
        for layer in range(config.num_layers)
        for expert in range(config.num_experts)
    ]
    return probe(reader, store.memory[: config.top_k], blocks, options.probe_seconds)
