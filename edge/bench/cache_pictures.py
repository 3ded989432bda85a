"""The pictures of a trace: what caches of all sizes would hit, and what guesses of all depths would name."""

from collections.abc import Callable
from itertools import pairwise

from edge.bench.line_chart import Chart, Line
from edge.errors import TraceError
from edge.experts.recall import recall
from edge.experts.simulate import compare, uses_per_pass
from edge.experts.trace import Trace

# Of all experts of the model, in percent.
CACHE_SIZES = (2.5, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)
POLICY_NAMES = {
    "decode-belady": "the optimum, which knows the future",
    "lfu": "LFU with decay, the engine's",
    "lru": "LRU",
}
RECALL_SIZES = (10, 25, 50)
DEEPEST = 4  # guesses, by the experts that a layer needs for a token


def slots(num_experts: int, percent: float) -> int:
    """At least one."""
    return max(1, round(num_experts * percent / 100))


def hit_rates(trace: Trace, subtitle: str, done: Callable[[], object] = lambda: None) -> Chart:
    """Hit rate while decoding by cache size; `done` is called after each of CACHE_SIZES."""
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in POLICY_NAMES}
    num_experts = trace.num_experts
    for percent in CACHE_SIZES:
        size = slots(num_experts, percent)
        (outcomes,) = compare(trace, list(POLICY_NAMES), [size]).values()
        for name, outcome in zip(POLICY_NAMES, outcomes, strict=True):
            points[name].append((100 * size / num_experts, 100 * outcome.decode_hit_rate))
        done()
    lines = [Line(POLICY_NAMES[name], points[name]) for name in POLICY_NAMES]
    even = Line("if experts were asked for evenly", [(0.0, 0.0), (100.0, 100.0)])
    return Chart(
        title="Expert cache: hit rate by size",
        subtitle=subtitle,
        x_label=f"experts that fit into RAM (% of {num_experts})",
        y_label="found in RAM while decoding (%)",
        x_most=100,
        y_most=100,
        lines=[*lines, even],
    )


def prefetch_recall(trace: Trace, subtitle: str) -> Chart:
    """Recall of the guess of the next layer's experts by how many are guessed. Raises TraceError without guesses."""
    needed = experts_per_token(trace)
    depths = sorted({max(1, round(needed * part / 4)) for part in range(1, 4 * DEEPEST + 1)})
    lines = [Line("of all experts needed", _percent(depths, recall(trace, depths)))]
    for percent in RECALL_SIZES:
        size = slots(trace.num_experts, percent)
        shares = recall(trace, depths, size)
        lines.append(Line(f"of those missing with {percent}% in RAM", _percent(depths, shares)))
    return Chart(
        title="Prefetch: experts guessed one layer ahead",
        subtitle=subtitle,
        x_label=f"experts guessed per layer (a token needs {needed})",
        y_label="named by the guess (%)",
        x_most=depths[-1],
        y_most=100,
        lines=lines,
    )


def experts_per_token(trace: Trace) -> int:
    """That a layer needs for one token. Raises TraceError for a trace without decoding, or without guesses."""
    guessed = [len(access.experts) for access in trace if access.ranks and not access.is_scan]
    if not guessed:
        raise TraceError("the trace has no guesses of what decoding needs: `flashgate-edge trace` records them")
    return min(guessed)


def summary(trace: Trace) -> str:
    """How much was recorded, for a picture's subtitle."""
    passes = {access.step for access in trace if not access.is_scan}
    prompts = sum(later.is_scan and not sooner.is_scan for sooner, later in pairwise(trace)) + 1
    per_pass = uses_per_pass(trace)
    return f"{len(passes)} tokens decoded after {prompts} prompts, {per_pass:.0f} look-ups per token"


def _percent(depths: list[int], shares: list[float]) -> list[tuple[float, float]]:
    return [(depth, 100 * share) for depth, share in zip(depths, shares, strict=True)]
