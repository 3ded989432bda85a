"""Who interrupts whom on the machine's cores: the server never the engine.

The engine's threads compute in step: when one is interrupted for a poll of the status, all wait for it. Under
SCHED_BATCH a thread that wakes up takes an idle core, or waits for the next tick; its share of time stays the same.
Measured in edge/EXPERIMENTS.md. Threads and processes inherit it, and taking it back needs no privilege.
"""

import os
from contextlib import suppress


def interrupt_nobody() -> None:
    """For this thread and whatever it starts from now on."""
    _set(os.SCHED_BATCH)


def be_normal() -> None:
    """Take back what was inherited."""
    _set(os.SCHED_OTHER)


def _set(policy: int) -> None:
    # A sandbox may forbid it: the engine is then interrupted now and then, and all is well otherwise.
    with suppress(OSError):
        os.sched_setscheduler(0, policy, os.sched_param(0))
