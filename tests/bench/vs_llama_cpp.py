"""The same geometry, random weights and memory for this engine and for llama.cpp, in turns.

    python -m tests.bench.vs_llama_cpp --layers 8 --experts 128 --memory 12GB --prompt-tokens 64 512
    python -m tests.bench.vs_llama_cpp --layers 8 --experts 512 --memory 3GB 12GB --dir /data

Both sides: 4.5 bits per weight, all of the model's own K experts per token, the same number of threads, a process of
its own under the same memory limit of the kernel (page cache included), an unmeasured request first, then random ids.
llama.cpp maps its file and fills what memory there is with it as it loads; where its weights fit the limit it also runs
with weights repacked for its faster kernels, and the better of its figures counts. The page cache is dropped before
each run.

Needs `pip install flashgate[bench-llama]`, or with --llama-python an interpreter that has it, and root for the limit.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.budget import format_bytes, parse_bytes
from edge.checkpoint.geometries import geometry
from edge.errors import EdgeError
from tests.bench.llama_gguf import file_bytes
from tests.bench.memory_group import NoMemoryGroup, memory_group

HERE = Path(__file__).parent
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
MODULES = ("llama_cpp", "gguf")
SPACE_SLACK = 1.05  # metadata, vectors, and the file system's own
REPACK_SLACK = 1.15  # a copy of the weights, state and buffers; the file's own pages can go
RUN_SECONDS = 3600
FIGURES = {"decode": "decode_tokens_per_second", "prompt": "prefill_tokens_per_second"}

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """What both sides are given."""

    memory_bytes: int
    prompt_tokens: int

    def __str__(self) -> str:
        return f"{format_bytes(self.memory_bytes)}, prompt of {self.prompt_tokens} tokens"


@dataclass(slots=True)
class Rounds:
    """Results of one case, round by round."""

    ours: list[Result] = field(default_factory=list)
    theirs: list[Result] = field(default_factory=list)

    def ratios(self, key: str) -> list[float]:
        """Ours by theirs, of each round: machines change from hour to hour, neighbours in time little."""
        return [mine[key] / its[key] for mine, its in zip(self.ours, self.theirs, strict=True)]


class Failed(Exception):  # noqa: N818 told to the user as it is
    """A run that gave no figures; the message says what it said."""


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    try:
        check_modules(args.llama_python)
        with tempfile.TemporaryDirectory(prefix="vs-llama-", dir=args.dir) as work:
            pack, model = make_models(args, Path(work))
            cases = [Case(parse_bytes(m), p) for m, p in itertools.product(args.memory, args.prompt_tokens)]
            results = {case: run_case(args, case, pack, model) for case in cases}
    except (Failed, NoMemoryGroup, EdgeError) as error:
        print(f"vs_llama_cpp: {error}", file=sys.stderr)
        return 1
    for case, rounds in results.items():
        print("\n".join(["", *summary(case, rounds)]))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", default="qwen3.5-397b-a17b", help="one that `flashgate-edge synth` knows")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--memory", nargs="+", default=["12GB"], metavar="SIZE", help="limits, each a case (12GB)")
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[64], metavar="P", help="each a case (64)")
    parser.add_argument("--tokens", type=int, default=32, help="decoded and measured (32)")
    parser.add_argument("--warmup", type=int, default=4, help="decoded before that (4)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3, help="of each case; the spread is over these (3)")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where both models are written, then removed")
    parser.add_argument("--llama-python", default=sys.executable, help="an interpreter with llama_cpp and gguf")
    return parser.parse_args(argv)


def check_modules(python: str) -> None:
    """Raise Failed saying what to install if llama.cpp is not there."""
    program = f"import importlib.util as u; print(*(m for m in {MODULES!r} if not u.find_spec(m)))"
    missing = run([python, "-c", program]).split()
    if missing:
        raise Failed(
            f"{python} has no {' and '.join(missing)}: pip install 'flashgate[bench-llama]', or --llama-python"
        )


def make_models(args: argparse.Namespace, work: Path) -> tuple[Path, Path]:
    """Our pack and its like in GGUF. Raises Failed if the disk has no room for both."""
    pack, model = work / "pack", work / "model.gguf"
    edge = [sys.executable, "-m", "edge"]
    config = geometry(args.geometry, num_layers=args.layers, num_experts=args.experts).to_json()
    check_space(work, 2 * file_bytes(config))
    shape = ["--geometry", args.geometry, "--layers", str(args.layers), "--experts", str(args.experts)]
    run([*edge, "synth", str(pack), *shape, "--bits", "4"], show=True)
    run([args.llama_python, str(HERE / "llama_gguf.py"), str(model)], show=True, text=json.dumps(config))
    return pack, model


def check_space(work: Path, needed: int) -> None:
    """Raise Failed unless so many bytes are free."""
    free = shutil.disk_usage(work).free
    if free < needed * SPACE_SLACK:
        raise Failed(f"{work.parent} has {format_bytes(free)} free; both models take {format_bytes(needed)}: see --dir")


def run_case(args: argparse.Namespace, case: Case, pack: Path, model: Path) -> Rounds:
    """All rounds, each side first in turn, telling stdout what came out."""
    rounds = Rounds()
    print(f"\n{case}", flush=True)
    for number in range(args.rounds):
        sides = {"flashgate": rounds.ours, "llama.cpp": rounds.theirs}
        for side in sorted(sides, reverse=bool(number % 2)):
            result = (
                run_ours(args, case, pack, number) if side == "flashgate" else run_theirs(args, case, model, number)
            )
            sides[side].append(result)
            speeds = ", ".join(f"{name} {result[key]:.2f} tokens/s" for name, key in FIGURES.items())
            print(f"  round {number + 1} {side:10} {speeds}", flush=True)
    return rounds


def run_ours(args: argparse.Namespace, case: Case, pack: Path, number: int) -> Result:
    command = [sys.executable, "-m", "edge", "bench", str(pack), "--json", "--memory", str(case.memory_bytes)]
    return run_limited([*command, *load(args, case, number)], case)


def run_theirs(args: argparse.Namespace, case: Case, model: Path, number: int) -> Result:
    """The better of the ways to run llama.cpp that the memory allows, figure by figure."""
    command = [args.llama_python, str(HERE / "llama_run.py"), str(model), *load(args, case, number)]
    results = [run_limited(command, case)]
    if model.stat().st_size * REPACK_SLACK < case.memory_bytes:
        results.append(run_limited([*command, "--repack"], case))
    best: Result = {key: max(result[key] for result in results) for key in FIGURES.values()}
    return best | {"version": results[0]["version"]}


def load(args: argparse.Namespace, case: Case, number: int) -> list[str]:
    """The options that both sides' programs have in common."""
    values = {
        "prompt-tokens": case.prompt_tokens,
        "tokens": args.tokens,
        "warmup": args.warmup,
        "threads": args.threads,
        "seed": number,
    }
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def run_limited(command: list[str], case: Case) -> Result:
    """The figures that a command prints, run under the case's limit.

    With the page cache empty: pages that somebody else has read would be used without counting against the limit.
    """
    drop_caches()
    with memory_group(case.memory_bytes) as group:
        figures: Result = json.loads(run(group.argv(command)))
    return figures


def run(command: Sequence[str], *, show: bool = False, text: str | None = None) -> str:
    """A command's stdout; its stderr goes to ours if `show`. Raises Failed with its last words."""
    done = subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=None if show else subprocess.PIPE,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if done.returncode:
        words = (done.stderr or "").strip().splitlines()[-3:]
        raise Failed(f"{' '.join(command)} ended with {done.returncode}: {' / '.join(words)}")
    return done.stdout


def drop_caches() -> None:
    """Forget what has been read and written; says so where that is not permitted."""
    try:
        os.sync()
        DROP_CACHES.write_text("1")
    except OSError:
        print("  the page cache cannot be dropped here: llama.cpp may find pages in it", file=sys.stderr)


def summary(case: Case, rounds: Rounds) -> Iterator[str]:
    """Medians, and the ratios with their spread."""
    yield f"{case}: {len(rounds.ours)} rounds, llama-cpp-python {rounds.theirs[0]['version']}"
    for name, key in FIGURES.items():
        ours, theirs = (statistics.median(r[key] for r in side) for side in (rounds.ours, rounds.theirs))
        ratios = rounds.ratios(key)
        spread = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        share = statistics.median(r[key.replace("tokens_per_second", "roof_share")] for r in rounds.ours)
        yield f"  {name:7} {ours:8.2f} against {theirs:8.2f} tokens/s: {spread}; {share:.2f} of our roof"


if __name__ == "__main__":
    sys.exit(main())
