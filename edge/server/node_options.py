"""How a node is to serve, and what of its memory the engine gets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.budget import format_bytes
from edge.deviation import check_deviation
from edge.engine_options import MAX_DRAFT_TOKENS, Speculate
from edge.errors import BudgetError, EdgeError
from edge.server import pipe, sensors
from edge.server.limits import margin_bytes
from edge.server.supervisor import ENGINE_COMMAND


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How to serve. Ports: 0 takes a free one. Raises: EdgeError naming what is out of range."""

    model: Path
    host: str
    port: int
    metrics_port: int
    memory_bytes: int
    context_tokens: int
    threads: int
    queue: int
    drain_s: float
    engine_silence_s: float
    num_sequences: int | None = None  # requests at once; None: as many as are worth their memory
    verify: Literal["first", "always", "off"] = "always"  # which reads of an expert are checked
    prefix_memory_bytes: int | None = None  # for prompts' beginnings; 0: none, None: as much as is worth it
    prefix_disk_bytes: int = 0
    prefix_dir: Path | None = None
    speculate: Speculate = "auto"  # see edge.engine_options
    draft_tokens: int = 1
    experts_per_token: int | None = None  # fewer than the model's own
    substitute: float | None = None  # see edge.engine_options
    engine_command: Sequence[str] = ENGINE_COMMAND

    def __post_init__(self) -> None:
        for name in ("port", "metrics_port"):
            if not 0 <= getattr(self, name) < 65536:
                raise EdgeError(f"{name} is {getattr(self, name)}: it must be 0 to 65535")
        for name in ("context_tokens", "threads"):
            if getattr(self, name) < 1:
                raise EdgeError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.num_sequences is not None and self.num_sequences < 1:
            raise EdgeError(f"sequences is {self.num_sequences}: it must be at least 1")
        if self.queue < 0:
            raise EdgeError(f"queue is {self.queue}: it must be 0 or more")
        if (self.prefix_dir is None) != (self.prefix_disk_bytes == 0):
            raise EdgeError("prefix_dir and prefix_disk go together: where prompts are kept, and how much at most")
        if not 1 <= self.draft_tokens <= MAX_DRAFT_TOKENS:
            raise EdgeError(f"draft_tokens is {self.draft_tokens}: it must be 1 to {MAX_DRAFT_TOKENS}")
        check_deviation(self.experts_per_token, self.substitute)
        if not self.drain_s >= 0:
            raise EdgeError(f"drain_seconds is {self.drain_s}: it must be 0 or more")
        # The engine gives a sign twice a second.
        if not self.engine_silence_s >= 1:
            raise EdgeError(f"engine_timeout is {self.engine_silence_s}: it must be at least 1")


def engine_share(options: NodeOptions) -> pipe.Load:
    """The engine gets what the server itself does not take of the memory. Raises: BudgetError if that is nothing."""
    server_bytes = sensors.resident_bytes() + margin_bytes(options.context_tokens)
    if options.memory_bytes <= server_bytes:
        stated, taken = format_bytes(options.memory_bytes), format_bytes(server_bytes)
        raise BudgetError(f"the server alone takes {taken}; --memory says {stated}, for it and the engine")
    return pipe.Load(
        path=str(options.model),
        memory_bytes=options.memory_bytes - server_bytes,
        context_tokens=options.context_tokens,
        threads=options.threads,
        num_sequences=options.num_sequences,
        verify=options.verify,
        prefix_memory_bytes=options.prefix_memory_bytes,
        prefix_disk_bytes=options.prefix_disk_bytes,
        prefix_dir=None if options.prefix_dir is None else str(options.prefix_dir),
        speculate=options.speculate,
        draft_tokens=options.draft_tokens,
        experts_per_token=options.experts_per_token,
        substitute=options.substitute,
    )
