"""A forecast for people, with the terms of its read model."""

from collections.abc import Iterator
from textwrap import fill
from typing import Any

from edge.budget import format_bytes

LABEL, WIDTH = 18, 110
MILLI = 1000


def forecast_table(figures: dict[str, Any]) -> str:
    """Of what `flashgate-edge plan --json` prints."""
    return "\n".join([*_heading(figures), "", *_decode(figures), "", *_prompt(figures)])


def _heading(f: dict[str, Any]) -> Iterator[str]:
    experts = f"{f['num_experts']} experts, {f['top_k']} per token, " if f["num_experts"] else ""
    yield f"{f['model']}: {f['num_layers']} layers, {experts}{f['bits']} bits"
    parts = {name: nbytes for name, nbytes in f["memory"].items() if name != "budget" and nbytes}
    shares = ", ".join(f"{name} {format_bytes(nbytes)}" for name, nbytes in parts.items())
    yield _row("memory", f"{format_bytes(f['memory']['budget'])}: {shares}")
    total = f["num_layers"] * f["num_experts"]
    if total:
        hits = f"{f['cache_hit_rate']:.1%} of look-ups expected there ({f['routing']} routing)"
        yield _row("experts in RAM", f"{f['expert_slots']} of {total}; {hits}")
    if f["dense_streamed_bytes"]:
        what = f"{f['streamed_layers']} of {f['num_layers']} layers"
        yield _row("dense weights", f"{format_bytes(f['dense_streamed_bytes'])} stream in every pass, of {what}")
    sequences = f"{f['sequences']} side by side, " if f["sequences"] > 1 else ""
    yield _row(
        "sequences", f"{sequences}contexts of {f['context_tokens']} tokens, prompts in chunks of {f['chunk_tokens']}"
    )


def _decode(f: dict[str, Any]) -> Iterator[str]:
    tokens = f["sequences"] * f["decode_passes_per_second"]
    disk, ram = (format_bytes(round(f[f"{place}_bytes_per_pass"])) for place in ("disk", "ram"))
    yield _row(
        "decode", f"{tokens:.2f} tokens/s: a pass takes {_ms(f['pass_seconds'])}, reads {disk} of disk, {ram} of RAM"
    )
    kinds = dict(f["compute_seconds_by_kind"])
    experts = f["num_layers"] * f["experts_per_layer"]
    if experts:
        kinds[f"{experts:.0f} experts of {_ms(f['expert_seconds'])}"] = experts * f["expert_seconds"]
    longest = sorted(kinds.items(), key=lambda item: -item[1])
    terms = ", ".join(f"{kind.replace('_', ' ')} {_ms(seconds)}" for kind, seconds in longest if seconds)
    yield _row("  compute", f"{_ms(f['compute_seconds'])} ({f['compute_rate_is']}): {terms}")
    misses = f["experts_per_layer"] * (1 - f["cache_hit_rate"])
    rate = f"{f['disk_bytes_per_second'] / 1e9:.2f} GB/s ({f['disk_rate_is']})"
    needs = f"the disk gives {rate}"
    if experts:
        each = f"{format_bytes(f['expert_block_bytes'])} each"
        needs = f"{misses:.1f} of {f['experts_per_layer']:.1f} experts per layer are read, {each}; {needs}"
    guessed = f" and, at a recall of {f['prefetch_recall']:.0%}, read ahead" if f["prefetch_recall"] else ""
    yield _row("  + wait", f"{_ms(f['wait_seconds'])}: {needs}; less what is computed meanwhile{guessed}")


def _prompt(f: dict[str, Any]) -> Iterator[str]:
    nbytes, seconds = format_bytes(round(f["prefill_disk_bytes"])), f["prefill_disk_seconds"]
    yield _row("prompt", f"of {f['prompt_tokens']} tokens: reads {nbytes} of disk, at least {seconds:.1f} s of it")


def _ms(seconds: float) -> str:
    return f"{MILLI * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _row(label: str, text: str) -> str:
    return fill(f"{label:{LABEL}}{text}", WIDTH, subsequent_indent=" " * LABEL, break_on_hyphens=False)
