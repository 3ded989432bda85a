"""The figures of one variant, of what was measured of it and of the reference: pure functions.

accuracy        questions whose check lets the greedy answer through, of all; over all, and for each task
json            answers that are JSON by strict_json.py, of all to questions whose check is same_json: valid, not right
perplexity      exp of the mean nll over all scored tokens: of the reference answers given their prompts, or of a text
kl              mean of KL(reference || variant) over the same tokens, nats per token
same_tokens     scored tokens of which reference and variant have the same likeliest one, of all: each position given
                the right tokens before it, so that one difference does not make the next
same_answers    questions whose greedy answers are the same, token by token, as the reference's, of all
first_different  median count of tokens before the first difference, over the answers that differ

What nll, kl and same are of a token: scoring.PassageScore. Intervals: estimates.py.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from edge.evaluation.checks import SameJson
from edge.evaluation.estimates import Mean, Share, mean_per_token
from edge.evaluation.measured import Answer, Measured
from edge.evaluation.questions import Question
from edge.evaluation.strict_json import is_json

Figures = dict[str, Any]


def figures(questions: Sequence[Question], measured: Measured, reference: Measured | None) -> Figures:
    """Plain JSON values; null where there is nothing to count. `reference` is None for the reference itself."""
    answers, scores = measured.answers, measured.scores
    is_right = [question.check(answer.text) for question, answer in zip(questions, answers, strict=True)]
    counts = [score.num_tokens for score in scores]
    nll = mean_per_token([score.nll for score in scores], counts) if scores else None
    kl = mean_per_token([score.kl for score in scores], counts) if scores and reference else None
    return {
        "bits": measured.bits,
        "nbytes": measured.nbytes,
        "slots": measured.slots,
        "own_experts": measured.own_experts,
        "seconds": round(measured.seconds, 3),
        "accuracy": _share(is_right),
        "tasks": {
            task: _share([right for right, question in zip(is_right, questions, strict=True) if question.task == task])
            for task in dict.fromkeys(question.task for question in questions)
        },
        "json": _share([is_json(answer.text) for answer in _asked_for_json(questions, answers)]),
        "perplexity": None if nll is None else _perplexity(nll),
        "kl": None if kl is None else {"mean": kl.value, "error": _finite(kl.error)},
        "same_tokens": _of(sum(score.same for score in scores), sum(counts)) if reference else None,
        **_same_answers(answers, reference),
    }


def _asked_for_json(questions: Sequence[Question], answers: Sequence[Answer]) -> Iterator[Answer]:
    for question, answer in zip(questions, answers, strict=True):
        if isinstance(question.check, SameJson):
            yield answer


def _same_answers(answers: Sequence[Answer], reference: Measured | None) -> Figures:
    if reference is None:
        return {"same_answers": None, "first_different": None}
    pairs = [(one.ids, other.ids) for one, other in zip(answers, reference.answers, strict=True)]
    ahead = [_num_alike(one, other) for one, other in pairs if one != other]
    return {
        "same_answers": _of(len(pairs) - len(ahead), len(pairs)),
        "first_different": statistics.median(ahead) if ahead else None,
    }


def _num_alike(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _perplexity(nll: Mean) -> Figures:
    low, high = nll.value - nll.error, nll.value + nll.error
    return {"value": _exp(nll.value), "low": _exp(low), "high": _exp(high)}


def _exp(value: float) -> float | None:
    """None where the exponent is unknown, or for what no double can hold: a model that rules out the right tokens."""
    try:
        return math.exp(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _share(outcomes: Sequence[bool]) -> Figures | None:
    return _of(sum(outcomes), len(outcomes))


def _of(count: int, total: int) -> Figures | None:
    if not total:
        return None
    share = Share(count, total)
    low, high = share.interval
    return {"count": count, "total": total, "share": share.value, "low": low, "high": high}
