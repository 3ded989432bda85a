"""`flashgate-edge info`: what a packed model is."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge.checkpoint.pack import Pack

CONTEXT_TOKENS = 4096  # the context that `serve` and `generate` have unless told otherwise


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "info",
        help="say what a packed model is",
        description="Say what a packed model is: geometry, sizes, precision, where it came from.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory that `convert` wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the table or the object. Raises PackError."""
    from edge.checkpoint.pack import Pack

    info = describe(Pack.open(args.model))
    if args.json:
        print(json.dumps(info, indent=2))
    else:
        print("\n".join(f"{label:22}{text}" for label, text in rows(info)))
    return 0


def describe(pack: "Pack") -> dict[str, Any]:
    """Everything that the pack says of itself, as plain JSON values."""
    from edge.checkpoint.layout import VERSION
    from edge.checkpoint.summary import bits_per_weight, count_parameters, least_memory

    manifest, contents = pack.manifest, pack.manifest.contents
    parameters = count_parameters(pack.config)
    return {
        "name": pack.name,
        "version": VERSION,
        "bits": contents.bits,
        "group": contents.group,
        "sensitive_bits": contents.sensitive_bits,
        "calibration": asdict(manifest.calibration) if manifest.calibration else None,
        "bits_per_weight": {part: round(bits, 3) for part, bits in bits_per_weight(contents).items()},
        "parameters_total": parameters.total,
        "parameters_active": parameters.active,
        "dense_bytes": contents.dense_nbytes,
        "expert_bytes": contents.nbytes - contents.dense_nbytes,
        "expert_block_bytes": contents.block_bytes,
        "least_memory_bytes": least_memory(contents, CONTEXT_TOKENS),
        "has_tokenizer": pack.tokenizer_dir is not None,
        "config": pack.config.to_json(),
        "skipped": dict(manifest.skipped),
        "source": dict(manifest.source),
    }


def rows(info: dict[str, Any]) -> list[tuple[str, str]]:
    """The table for people."""
    from edge.budget import format_bytes

    config = info["config"]
    kinds = config["layer_types"]
    group = f", group {info['group']}" if info["group"] else ""
    sensitive = f", attention {info['sensitive_bits']}" if info["sensitive_bits"] else ""
    shared = f", {config['shared_expert_size']} shared" if config["shared_expert_size"] else ""
    experts = f"{config['num_experts']}, {config['top_k']} per token, size {config['expert_size']}{shared}"
    blocks = f"{format_bytes(info['expert_bytes'])}, {format_bytes(info['expert_block_bytes'])} each"
    layers = f"{len(kinds)}: {kinds.count('full_attention')} full, {kinds.count('linear_attention')} linear"
    skipped = [f"{kind}: {counts['tensors']} tensors" for kind, counts in info["skipped"].items()]
    return [
        ("model", info["name"]),
        ("family", config["family"]),
        ("parameters", f"{_count(info['parameters_total'])}, active {_count(info['parameters_active'])}"),
        ("layers", f"{layers}; an MTP layer, to draft with" if config["num_mtp_layers"] else layers),
        ("hidden, vocabulary", f"{config['hidden_size']}, {config['vocab_size']}"),
        ("experts per layer", experts if config["num_experts"] else f"none, one MLP of size {config['mlp_size']}"),
        ("bits", f"{info['bits']:g}{sensitive}{group}"),
        ("calibration", _calibration(info["calibration"])),
        ("bits per weight", ", ".join(f"{part} {bits:g}" for part, bits in info["bits_per_weight"].items())),
        ("dense weights", format_bytes(info["dense_bytes"])),
        ("experts", blocks if config["num_experts"] else "none"),
        ("least memory", f"about {format_bytes(info['least_memory_bytes'])} with a context of {CONTEXT_TOKENS} tokens"),
        ("tokenizer", "yes" if info["has_tokenizer"] else "none: token ids only"),
        ("skipped", ", ".join(skipped) or "nothing"),
        ("source", f"{len(info['source']['files'])} files, config {info['source']['config_sha256'][:12]}"),
        ("format", f"version {info['version']}"),
    ]


def _calibration(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "none"
    return f"{calibration['tokens']} tokens of a text with sha256 {calibration['sha256'][:12]}"


def _count(number: int) -> str:
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= unit:
            return f"{number / unit:.2f}{letter}"
    return str(number)
