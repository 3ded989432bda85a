"""The examination: greedy answers to held-out questions, judged by each task's own program."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from ops.demo.tasks import TASKS, make_dialogue
from ops.demo.tasks.dialogue import Turn
from ops.demo.tasks.draw import Side
from ops.demo.tokenizer import END_OF_TEXT_ID, TURN_END, TURN_END_ID, TURN_START

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import Qwen3_5MoeForCausalLM

MAX_NEW_TOKENS = 160
AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Item:
    """A chat up to a question, and the turn that judges the answer."""

    task: str
    messages: list[dict[str, str]]
    turn: Turn


@dataclass(frozen=True, slots=True)
class Result:
    """An item and what the model said."""

    item: Item
    answer: str

    @property
    def is_right(self) -> bool:
        """By the turn's program."""
        return self.item.turn.check(self.answer)


Answerer = Callable[[Sequence[list[dict[str, str]]]], list[str]]


def items(per_task: int, tasks: Sequence[str] = TASKS, seed: int = 0, side: Side = Side.HELD_OUT) -> list[Item]:
    """`per_task` questions of each: the last turn of a chat, after the right answers to the turns before it."""
    found = []
    for task in tasks:
        for index in range(per_task):
            chat = make_dialogue(task, f"examination {seed} {index}", side)
            found.append(Item(task, chat.messages(), chat.turns[-1]))
    return found


def examine(answer: Answerer, questions: Sequence[Item]) -> list[Result]:
    """All of them answered."""
    answers = answer([item.messages for item in questions])
    return [Result(item, text) for item, text in zip(questions, answers, strict=True)]


def table(results: Sequence[Result], failures: int) -> str:
    """A line for each task, then for each up to `failures` wrong answers."""
    lines = [f"{'task':12} {'right':>11} {'share':>6}"]
    tasks = list(dict.fromkeys(result.item.task for result in results))
    for task in tasks:
        of_task = [result for result in results if result.item.task == task]
        right = sum(result.is_right for result in of_task)
        lines.append(f"{task:12} {right:5} / {len(of_task):3} {right / len(of_task):6.1%}")
    right = sum(result.is_right for result in results)
    lines.append(f"{'all':12} {right:5} / {len(results):3} {right / len(results):6.1%}")
    for task in tasks:
        wrong = [result for result in results if result.item.task == task and not result.is_right]
        for result in wrong[:failures]:
            question = result.item.messages[-1]["content"]
            lines.append(f"{task}: {question!r}\n  said  {result.answer!r}\n  right {result.item.turn.answer!r}")
    return "\n".join(lines)


def transformers_answerer(
    model: "Qwen3_5MoeForCausalLM", tokenizer: "Tokenizer", max_new_tokens: int = MAX_NEW_TOKENS
) -> Answerer:
    """Greedy answers by transformers' own forward pass and cache."""

    def answer(chats: Sequence[list[dict[str, str]]]) -> list[str]:
        prompts = [tokenizer.encode(prompt_text(chat), add_special_tokens=False).ids for chat in chats]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), AT_ONCE):
            chosen = order[start : start + AT_ONCE]
            for index, ids in zip(chosen, _generate(model, [prompts[i] for i in chosen], max_new_tokens), strict=True):
                answers[index] = tokenizer.decode(ids, skip_special_tokens=True)
        return answers

    return answer


def prompt_text(messages: Sequence[dict[str, str]]) -> str:
    """What the chat template makes of them, ready for an answer."""
    turns = (f"{TURN_START}{message['role']}\n{message['content']}{TURN_END}\n" for message in messages)
    return "".join(turns) + f"{TURN_START}assistant\n"


@torch.no_grad()
def _generate(model: "Qwen3_5MoeForCausalLM", prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Padded on the left, where transformers hides it from every layer."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[END_OF_TEXT_ID] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    generate = cast(Any, model).generate  # its type is that of a mixin which the model does not declare
    said = generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=[TURN_END_ID, END_OF_TEXT_ID],
        pad_token_id=END_OF_TEXT_ID,
    )
    return cast(list[list[int]], said[:, longest:].tolist())
