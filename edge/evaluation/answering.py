"""Greedy answers to many prompts, as many at once as the engine has places for."""

from collections.abc import Callable, Collection, Sequence

from edge.engine import Engine
from edge.events import Failed, Finished, Token
from edge.sampler import SamplingParams


def greedy_answers(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    end_ids: Collection[int],
    answered: Callable[[], object],
) -> list[list[int]]:
    """The token ids of each answer, without what ended it; an id of `end_ids` ends one, as does what the model has.

    `answered` is called after each. Raises the error of the first request that fails: StorageError, PackError.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    ended: set[int] = set()
    sampling = SamplingParams(max_tokens=max_tokens)
    for job, ids in enumerate(prompts):
        engine.submit(job, ids, sampling)
    while engine.has_work:
        for event in engine.step():
            match event:
                case Token(job, token) if token in end_ids:
                    ended.add(job)
                    engine.cancel(job)
                case Token(job, token) if job not in ended:
                    answers[job].append(token)
                case Failed(job, error) if job not in ended:
                    raise error
                case Failed() | Finished():
                    answered()
    return answers
