"""One run of `flashgate-edge bench`, from loading the model to the figures."""

import contextlib
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from edge import kernels
from edge.bench.figures import Figures, figures, memory_figures
from edge.bench.footprint import footprint
from edge.bench.measure import engine_context, measure
from edge.bench.probe import machine_rates
from edge.bench.traffic import weights
from edge.bench.workload import Workload
from edge.engine import Engine, EngineOptions
from edge.profiling import Stopwatch


def bench(path: Path, workload: Workload, memory_bytes: int, threads: int) -> Figures:
    """Everything that `bench --json` prints. Raises RequestError, PackError, BudgetError, StorageError."""
    options = EngineOptions(
        memory_bytes=memory_bytes,
        context_tokens=engine_context(workload),
        threads=threads,
        max_sequences=workload.sequences,
    )
    watch = Stopwatch()
    with _progress() as (show, loading):
        engine = Engine.load(path, options, loading, watch)
        with contextlib.closing(engine):
            show("disk and RAM")
            before = machine_rates(engine)
            measured = measure(engine, watch, workload, show)
            held = footprint()
            show("disk and RAM")
            after = machine_rates(engine)
    sizes = weights(engine.pack.manifest.contents)
    return {
        **_conditions(engine, workload, threads),
        **figures(measured, sizes, (before, after), workload.sequences),
        **memory_figures(held, memory_bytes),
    }


def cpu_name() -> str:
    """The model name that Linux reports, or the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _conditions(engine: Engine, workload: Workload, threads: int) -> Figures:
    config = engine.config
    return {
        "model": engine.pack.name,
        "num_layers": config.num_layers,
        "num_experts": config.num_experts,
        "top_k": config.top_k,
        "bits": engine.pack.manifest.contents.bits,
        "expert_block_bytes": engine.pack.experts.block_bytes,
        "cpu": cpu_name(),
        "kernels": kernels.variant(),
        "threads": threads,
        "sequences": workload.sequences,
        "prompt_tokens": workload.prompt_tokens,
        "tokens": workload.tokens,
        "warmup": workload.warmup,
        "seed": workload.seed,
        "expert_slots": engine.plan.num_slots,
        "chunk_tokens": engine.plan.chunk_tokens,
    }


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """What to call with the phase at every pass, and with the bytes loaded and all of them; shown on a terminal."""
    with tqdm(bar_format="{desc}: {n} passes, {elapsed}", leave=False, disable=None) as bar:

        def show(phase: str) -> None:
            if phase != bar.desc.removesuffix(": "):
                bar.n = 0
                bar.set_description(phase, refresh=True)
            bar.update()

        def loading(done: int, total: int) -> None:
            bar.set_description(f"loading {done / 1e9:.1f} of {total / 1e9:.1f} GB", refresh=False)
            bar.update()

        yield show, loading
