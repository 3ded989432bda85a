"""The figures of a run for people."""

from collections.abc import Iterator
from typing import Any

from edge.budget import format_bytes
from edge.profiling import KINDS

LABEL, BAR = 22, 24
GIGA = 1e9


def table(figures: dict[str, Any]) -> str:
    """Of what `flashgate-edge bench --json` prints."""
    return "\n".join([*_heading(figures), "", *_speeds(figures), "", *_split(figures), "", *_machine(figures)])


def _heading(f: dict[str, Any]) -> Iterator[str]:
    experts = f"{f['num_experts']} experts, {f['top_k']} per token" if f["num_experts"] else "no experts"
    yield f"{f['model']}: {f['num_layers']} layers, {experts}, {f['bits']} bits"
    yield f"{f['cpu']}, {f['kernels']}, {f['threads']} threads"
    slots = f"{f['expert_slots']} of {f['num_layers'] * f['num_experts']} experts fit, " if f["num_experts"] else ""
    if f["streamed_layers"]:
        slots += f"{f['streamed_layers']} layers stream from disk, "
    yield f"--memory {format_bytes(f['memory_budget_bytes'])}: {slots}prompts in chunks of {f['chunk_tokens']}"


def _speeds(f: dict[str, Any]) -> Iterator[str]:
    many = f["sequences"] > 1
    each = f", {f['decode_tokens_per_second_per_sequence']:.2f} each" if many else ""
    yield _row("decode", f"{f['decode_tokens_per_second']:.2f} tokens/s{each}, {_share(f, 'decode')}")
    low, median, high = (1000 * seconds for seconds in f["decode_pass_seconds_quartiles"])
    yield _row("  a pass takes", f"{median:.1f} ms, half of them {low:.1f} to {high:.1f}; {f['tokens']} passes")
    read, ram = (
        format_bytes(round(f["expert_bytes_per_token"] + f["dense_bytes_per_token"])),
        format_bytes(round(f["ram_bytes_per_token"])),
    )
    lookups = f["expert_lookups_per_token"]
    experts = f"{lookups:.1f} experts, {f['cache_hit_rate']:.1%} there; " if lookups else ""
    yield _row("  a token needs", f"{experts}{read} from disk, {ram} of RAM read")
    if f["prefetch_bytes_per_token"]:
        guessed, wasted = (format_bytes(round(f[f"prefetch_{name}bytes_per_token"])) for name in ("", "wasted_"))
        yield _row(
            "  read on a guess", f"{guessed} per token, {wasted} of it wasted; recall {f['prefetch_recall']:.1%}"
        )
    if f["top_k"] != f["own_top_k"] or f["substitute"] is not None:
        used = f"{f['top_k']} experts per layer for its own {f['own_top_k']}"
        used += f", {f['substituted_experts_per_token']:.1f} replaced"
        yield _row("  a token deviates", f"{used}; {f['router_weight_kept']:.1%} of the router's weight kept")
    yield _row("prompt", f"{f['prefill_tokens_per_second']:.2f} tokens/s, {_share(f, 'prefill')}")
    read = format_bytes(f["prefill_expert_bytes"] + f["prefill_dense_bytes"])
    yield _row(
        "  of one sequence", f"{f['prompt_tokens']} tokens, first answer after {f['ttft_seconds']:.3f} s; {read} read"
    )


def _share(f: dict[str, Any], phase: str) -> str:
    low, high = f[f"{phase}_roof_share_range"]
    return f"{f[f'{phase}_roof_share']:.2f} of the {f[f'{phase}_bound_by']} roof ({low:.2f} to {high:.2f})"


def _split(f: dict[str, Any]) -> Iterator[str]:
    yield f"{'the time goes to':{LABEL}}{'decode':{BAR + 6}}prompt"
    phases = [f[f"{phase}_seconds_by_kind"] for phase in ("decode", "prefill")]
    for kind in KINDS:
        shares = [phase[kind] / sum(phase.values()) for phase in phases]
        if max(shares) > 0:
            cells = (f"{share:4.0%} {_bar(share):{BAR}} " for share in shares)
            yield _row(f"  {kind.replace('_', ' ')}", "".join(cells).rstrip())


def _bar(share: float) -> str:
    eighths = round(share * BAR * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _machine(f: dict[str, Any]) -> Iterator[str]:
    before, after = f["roofs"]
    disk, ram = "disk_bytes_per_second", "ram_bytes_per_second"
    achieved = f["decode_disk_bytes_per_second"]
    while_decoding = f"; {achieved / GIGA:.2f} while decoding read" if achieved else ""
    yield _row(
        "the disk gives", f"{before[disk] / GIGA:.2f}, {after[disk] / GIGA:.2f} GB/s (before, after){while_decoding}"
    )
    samples = f"half of {f['ram_samples']} samples between the passes" if f["ram_samples"] else "before, after"
    yield _row("RAM gives", f"{before[ram] / GIGA:.2f}, {after[ram] / GIGA:.2f} GB/s ({samples})")
    cache = f["page_cache_bytes"]
    of = f["memory_counted_by"] + ("" if cache is None else f", {format_bytes(cache)} of it page cache")
    peak, budget = format_bytes(f["peak_memory_bytes"]), format_bytes(f["memory_budget_bytes"])
    yield _row("memory at most", f"{peak} of {budget} (of the {of})")


def _row(label: str, text: str) -> str:
    return f"{label:{LABEL}}{text}"
