"""Measures what the machine gives a loaded engine, in the engine's own memory: a budget leaves no other."""

from edge.bench.roofs import Rates, ram_rate
from edge.engine import Engine
from edge.experts.disk_probe import disk_roof


def machine_rates(engine: Engine, *, seconds: float = 2.0) -> Rates:
    """Disk and RAM, in about `seconds` and a half. Destroys the experts in RAM: the engine may not `step` again.

    Except right after loading: an engine that has read no expert yet loses nothing.
    """
    memory = engine.experts.memory
    disk = disk_roof(engine.pack, seconds, into=memory)
    memory[len(memory) // 2 :] = 1  # pages that nobody has written to are no memory yet
    return Rates(disk.bytes_per_second, ram_rate(memory))
