"""How an engine is to run, as whoever starts it says."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from edge.deviation import check_deviation
from edge.errors import RequestError
from edge.experts.tuning import ReadSetting

MAX_THREADS = 1024  # that the kernels share their work among
MAX_DRAFT_TOKENS = 8  # one MTP layer guesses worse with each step; every guess needs room to take it back

Speculate = Literal["auto", "always", "off"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is to run."""

    memory_bytes: int
    context_tokens: int = 4096
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    chunk_tokens: int | None = None  # most tokens of prompts in one pass; None: as many as are worth their memory
    max_sequences: int | None = None  # requests that run at once; None: as many as are worth their memory
    expert_slots: int | None = None  # at most so many experts in RAM, below what the budget allows; for measurements
    prefix_memory_bytes: int | None = 0  # for snapshots of prompts' beginnings; None: as budget.py finds sensible
    prefix_disk_bytes: int = 0  # the most of them that may lie in prefix_dir
    prefix_dir: Path | None = None  # snapshots outlive the engine there, readable as prompts for whoever may read it
    verify: Literal["first", "always", "off"] = "always"  # which reads of an expert are checked against its checksum
    prefetch: bool = True  # read ahead what the next layer is guessed to need, where the disk idles
    reading: ReadSetting | None = None  # how the disk is asked; None: chosen by a short probe where experts stream
    # Guess tokens with the model's MTP layer and check them together: never changes an answer. "auto": while it pays.
    speculate: Speculate = "auto"
    draft_tokens: int = 1  # the most that are guessed for a sequence in one pass
    # What changes the answers for the sake of speed (edge/deviation.py); None: the model's own.
    experts_per_token: int | None = None  # fewer than the model's makers chose
    substitute: float | None = None  # a missing expert with less than this share of a token gives way to one in RAM

    def __post_init__(self) -> None:
        for name in ("memory_bytes", "context_tokens", "threads", "chunk_tokens", "max_sequences", "expert_slots"):
            _check_least(name, getattr(self, name), 1)
        if self.speculate not in get_args(Speculate):
            raise RequestError(f"speculate is {self.speculate!r}: it must be one of {', '.join(get_args(Speculate))}")
        if not 1 <= self.draft_tokens <= MAX_DRAFT_TOKENS:
            raise RequestError(f"draft_tokens is {self.draft_tokens}: it must be 1 to {MAX_DRAFT_TOKENS}")
        if self.threads > MAX_THREADS:
            raise RequestError(f"threads is {self.threads}: it must be at most {MAX_THREADS}")
        for name in ("prefix_memory_bytes", "prefix_disk_bytes"):
            _check_least(name, getattr(self, name), 0)
        if (self.prefix_dir is None) != (self.prefix_disk_bytes == 0):
            raise RequestError("prefix_dir and prefix_disk_bytes go together: where, and how much at most")
        if self.prefix_dir and self.prefix_memory_bytes == 0:
            raise RequestError("prefix_memory_bytes is 0: snapshots reach prefix_dir through memory")
        check_deviation(self.experts_per_token, self.substitute)


def _check_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise RequestError(f"{name} is {value}: it must be at least {least}")
