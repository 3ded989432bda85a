"""Hit rates of the cache policies on synthetic traces as skewed as the real model's, for EXPERIMENTS.md.

.venv/bin/python tests/bench/cache_policies.py
"""

import argparse

from edge.commands.cache_sim import table
from edge.experts.simulate import POLICIES, compare
from tests.unit.edge.experts.skewed_traces import skewed_trace

NUM_LAYERS = 4
SLOTS_PER_LAYER = (8, 16, 64, 128, 256)


def main() -> None:
    """Print a table for each speed of drift."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=600)
    parser.add_argument("--prompt-every", type=int, default=0, help="passes between prompts; 0: none")
    parser.add_argument("--swaps", type=float, nargs="+", default=[0.1, 1.0, 5.0], help="per layer and pass")
    args = parser.parse_args()
    sizes = [NUM_LAYERS * slots for slots in SLOTS_PER_LAYER]
    for swaps in args.swaps:
        trace = list(
            skewed_trace(args.passes, num_layers=NUM_LAYERS, swaps_per_step=swaps, prompt_every=args.prompt_every)
        )
        print(f"\n{swaps} pairs of experts exchange their popularity per layer and pass")
        print("\n".join(table(list(POLICIES), compare(trace, list(POLICIES), sizes))))


if __name__ == "__main__":
    main()
