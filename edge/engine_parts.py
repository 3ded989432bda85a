"""What an engine is made of: a pack's weights and experts opened within a memory budget, and the model over them."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from edge import kernels
from edge.budget import MemoryPlan, plan_memory, resident_bytes, sensible_prefix_bytes
from edge.checkpoint.pack import Pack
from edge.dense_disk import DenseWeights, load_dense
from edge.dense_sizes import DenseSizes
from edge.deviation import Deviation
from edge.engine_options import EngineOptions
from edge.errors import BudgetError
from edge.experts.absent import NoExperts
from edge.experts.open_store import StoreOptions, open_store
from edge.experts.store import ExpertStore
from edge.layers.leeway import Leeway
from edge.layers.mtp import MtpLayer
from edge.locking import lock_in_ram
from edge.model import Model
from edge.prefix.disk import DiskTier
from edge.prefix.open_store import open_disk
from edge.prefix.snapshot import snapshot_bytes
from edge.profiling import UNTIMED, Watch

log = structlog.get_logger()

# With fewer of the experts in RAM than this, they stream, and each row of a pass reads its own: for 1.78 tokens a pass
# 1.25 times the bytes per token (edge/EXPERIMENTS.md). What the MTP layer takes is then better spent on more of them.
DRAFTING_SHARE = 0.5

Progress = Callable[[int, int], None]


def unheard(done: int, total: int) -> None:
    """Progress that nobody follows."""


@dataclass(frozen=True, slots=True)
class EngineParts:
    """All that has files, threads or weights behind it."""

    pack: Pack
    plan: MemoryPlan
    dense: DenseWeights
    store: ExpertStore | NoExperts
    model: Model
    prefix_disk: DiskTier | None
    deviation: Deviation | None
    leeway: Leeway | None  # that deviation at work
    mtp: MtpLayer | None  # None: nothing is drafted

    def close(self) -> None:
        """End the reading threads, and let go of the directory of snapshots."""
        self.store.close()
        self.dense.close()
        if self.prefix_disk:
            self.prefix_disk.directory.close()


def open_parts(path: Path, options: EngineOptions, progress: Progress = unheard, watch: Watch = UNTIMED) -> EngineParts:
    """Open the packed model at `path`; `progress` is told the dense bytes loaded and all of them.

    `watch` is told what the time goes to.
    Raises PackError, BudgetError, StorageError, PrefixDirectoryError, RequestError for options that the model forbids.
    """
    pack = Pack.open(path)
    deviation = Deviation.asked(pack.config, options.experts_per_token, options.substitute)
    leeway = None
    if deviation:
        pack, leeway = with_top_k(pack, deviation.experts), Leeway(deviation)
        log.warning("answers_may_deviate", **asdict(deviation))
    if options.context_tokens > pack.config.max_positions:
        limits = {"context_tokens": options.context_tokens, "max_positions": pack.config.max_positions}
        log.warning("context_beyond_trained_positions", **limits)
    kernels.set_num_threads(options.threads)
    pack, plan = _affordable(pack, options)
    with ExitStack() as on_error:
        prefix_disk = None
        if options.prefix_dir:
            prefix_disk = open_disk(options.prefix_dir, options.prefix_disk_bytes, pack)
            on_error.callback(prefix_disk.directory.close)
        dense = load_dense(pack, plan, _counted(progress, pack.dense_nbytes), watch)
        on_error.callback(dense.close)
        store: ExpertStore | NoExperts = NoExperts()
        if pack.config.num_experts:
            how = StoreOptions(options.verify, options.prefetch, options.reading)
            store = open_store(pack, plan.num_slots, how)
        on_error.callback(store.close)
        if not lock_in_ram([*dense.arrays, store.memory]):
            log.warning("weights_not_locked_in_ram", bytes=plan.dense_bytes + plan.expert_bytes)
        model = _model(pack, dense, store, watch, leeway)
        mtp = MtpLayer(pack.config, dense.tensors, _source(store), watch) if pack.config.num_mtp_layers else None
        on_error.pop_all()
    return EngineParts(pack, plan, dense, store, model, prefix_disk, deviation, leeway, mtp)


def with_top_k(pack: Pack, top_k: int) -> Pack:
    """As if the model's makers had chosen that a token goes to so many experts."""
    contents = pack.manifest.contents
    contents = replace(contents, config=replace(contents.config, top_k=top_k))
    return replace(pack, manifest=replace(pack.manifest, contents=contents))


def _affordable(pack: Pack, options: EngineOptions) -> tuple[Pack, MemoryPlan]:
    """The pack, and how its parts share the memory; without its MTP layer where that is not asked for or not worth it.

    Raises BudgetError.
    """
    # Whatever stands in for an expert depends on what others brought into RAM: with guesses, on the guesses.
    if options.speculate == "off" or options.substitute is not None:
        pack = pack.without_mtp()
    if options.speculate == "auto" and pack.config.num_mtp_layers:
        with suppress(BudgetError):
            plan = planned(pack, options)
            if plan.streamed_layers or plan.num_slots >= DRAFTING_SHARE * pack.config.total_experts:
                return pack, plan
        pack = pack.without_mtp()
        log.info("no_memory_for_drafting", memory_bytes=options.memory_bytes)
    return pack, planned(pack, options)


def planned(pack: Pack, options: EngineOptions) -> MemoryPlan:
    """How this process, as big as it is now, would share its memory out. Raises BudgetError."""
    return plan_memory(
        pack.config,
        pack.manifest.contents.experts,
        dense=DenseSizes.of(pack.manifest.contents),
        baseline_bytes=resident_bytes(),
        memory_bytes=options.memory_bytes,
        context_tokens=options.context_tokens,
        chunk_tokens=options.chunk_tokens,
        most_slots=options.expert_slots,
        max_sequences=options.max_sequences,
        prefix_bytes=_wished_prefix_bytes(options, pack),
        draft_tokens=options.draft_tokens if pack.config.num_mtp_layers else 0,
    )


def _source(store: ExpertStore | NoExperts) -> ExpertStore | None:
    return store if isinstance(store, ExpertStore) else None


def _model(
    pack: Pack, dense: DenseWeights, store: ExpertStore | NoExperts, watch: Watch, leeway: Leeway | None
) -> Model:
    source = _source(store)
    return Model(
        pack.config,
        dense.tensors,
        source,
        watch,
        source,
        stream=dense.stream,
        head=dense.head,
        embedding=dense.embedding,
        leeway=leeway,
    )


def _counted(progress: Progress, total: int) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return advance


def _wished_prefix_bytes(options: EngineOptions, pack: Pack) -> int | None:
    if options.prefix_memory_bytes is None and options.prefix_dir:
        # Through memory that holds no full context, nothing of a long prompt would reach the disk.
        least = snapshot_bytes(pack.config, options.context_tokens)
        return max(least, sensible_prefix_bytes(pack.config, options.memory_bytes, options.context_tokens))
    return options.prefix_memory_bytes
