"""Records which experts a model asks for while it answers prompts, and how well each layer's could be guessed."""

from collections.abc import Callable, Sequence
from pathlib import Path

from edge.engine import Engine
from edge.experts.trace import TraceWriter
from edge.sampler import SamplingParams


def record(
    engine: Engine, prompts: Sequence[Sequence[int]], max_tokens: int, out: Path, answered: Callable[[], object]
) -> int:
    """Answer one prompt after another, greedily; the number of tokens. `answered` is called after each.

    One at a time, so that a pass of decoding is one token's choice. Raises RequestError for a prompt, StorageError,
    PackError; OSError if the trace cannot be written.
    """
    sampling = SamplingParams(max_tokens=max_tokens)
    config, num_tokens = engine.config, 0
    with TraceWriter(out, config.num_layers * config.num_experts) as writer:
        engine.experts.recorder, engine.experts.guess_recorder = writer.record, writer.guess
        try:
            for ids in prompts:
                num_tokens += sum(1 for _ in engine.generate(ids, sampling))
                answered()
        finally:
            engine.experts.recorder = engine.experts.guess_recorder = None
    return num_tokens
