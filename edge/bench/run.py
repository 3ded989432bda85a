"""One run of `flashgate-edge bench`, from loading the model to the figures."""

import gc
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from edge import kernels
from edge.bench.figures import Figures, figures, memory_figures
from edge.bench.footprint import footprint
from edge.bench.measure import engine_context, measure
from edge.bench.probe import machine_rates
from edge.bench.roofs import RamMeter
from edge.bench.traffic import weights
from edge.bench.workload import Workload
from edge.checkpoint.pack import Pack
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.engine_parts import planned
from edge.experts.trace import TraceWriter
from edge.profiling import Stopwatch

PROBING = "disk and RAM"


def bench(
    path: Path,
    workload: Workload,
    options: EngineOptions,
    trace: Path | None = None,
) -> Figures:
    """Everything that `bench --json` prints; `trace` gets the experts that each layer asked for, warm-up and all.

    Context and sequences are the workload's, whatever the options say, and its tokens are random: nothing is drafted.
    Raises RequestError, PackError, BudgetError, StorageError; OSError if the trace cannot be written.
    """
    options = replace(
        options, context_tokens=engine_context(workload), max_sequences=workload.sequences, speculate="off"
    )
    memory_bytes, threads = options.memory_bytes, options.threads
    pack = Pack.open(path).without_mtp()
    planned(pack, options)  # or refuse before anything takes time
    with _progress() as (show, loading), _recording(trace, pack) as writer:
        show(PROBING)
        kernels.set_num_threads(threads)
        before = machine_rates(pack, memory_bytes)
        watch = Stopwatch()
        engine = Engine.load(path, options, loading, watch)
        with closing(engine):
            engine.experts.recorder = writer.record if writer else None
            meter = RamMeter(engine.dense.arrays)
            measured = measure(engine, watch, workload, show, meter.sample)
            meter.close()
            held = footprint()
        conditions = _conditions(engine, workload, options)
        del engine
        gc.collect()  # its memory is what the next line measures with
        show(PROBING)
        after = machine_rates(pack, memory_bytes)
    sizes = weights(pack.manifest.contents)
    return {
        **conditions,
        **figures(measured, sizes, (before, after), workload.sequences, meter.rates),
        **memory_figures(held, memory_bytes),
    }


def _recording(trace: Path | None, pack: Pack) -> AbstractContextManager[TraceWriter | None]:
    return TraceWriter(trace, pack.config.num_layers * pack.config.num_experts) if trace else nullcontext()


def cpu_name() -> str:
    """The model name that Linux reports, or the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _conditions(engine: Engine, workload: Workload, options: EngineOptions) -> Figures:
    config = engine.config
    return {
        "model": engine.pack.name,
        "num_layers": config.num_layers,
        "num_experts": config.num_experts,
        "top_k": config.top_k,
        "own_top_k": engine.deviation.own_experts if engine.deviation else config.top_k,
        "substitute": options.substitute,
        "bits": engine.pack.manifest.contents.bits,
        "cpu": cpu_name(),
        "kernels": kernels.variant(),
        "threads": options.threads,
        "sequences": workload.sequences,
        "prompt_tokens": workload.prompt_tokens,
        "tokens": workload.tokens,
        "warmup": workload.warmup,
        "seed": workload.seed,
        "expert_slots": engine.plan.num_slots,
        "streamed_layers": len(engine.plan.streamed_layers),
        "chunk_tokens": engine.plan.chunk_tokens,
    }


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """What to call with the phase at every pass, and with the bytes loaded and all of them; shown on a terminal."""
    with tqdm(bar_format="{desc}: {n} passes, {elapsed}", leave=False, disable=None) as bar:
        shown = ""

        def show(phase: str) -> None:
            nonlocal shown
            if phase != shown:
                shown, bar.n = phase, 0
                bar.set_description(phase)
            bar.update()

        def loading(done: int, total: int) -> None:
            bar.set_description(f"loading {done / 1e9:.1f} of {total / 1e9:.1f} GB", refresh=False)
            bar.update()

        yield show, loading
