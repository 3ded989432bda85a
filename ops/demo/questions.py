"""The examination as a question file for `flashgate-edge eval`: the questions of `examination.items`, without torch."""

from collections.abc import Iterator
from pathlib import Path

from edge.evaluation.questions import Question, dump_question
from edge.prompt import ChatMessage
from ops.demo.tasks import TASKS, make_dialogue
from ops.demo.tasks.draw import Side

FILE = Path(__file__).with_name("questions.jsonl")
PER_TASK = 100


def questions(per_task: int = PER_TASK) -> Iterator[Question]:
    """`per_task` held-out questions of each task: the last turn of a chat, after the right answers to those before."""
    for task in TASKS:
        for index in range(per_task):
            chat = make_dialogue(task, f"examination 0 {index}", Side.HELD_OUT)
            messages = tuple(ChatMessage(message["role"], message["content"]) for message in chat.messages())
            yield Question(f"{task}-{index}", task, messages, chat.turns[-1].answer, chat.turns[-1].check)


def question_file(per_task: int = PER_TASK) -> str:
    """Its text."""
    return "".join(dump_question(question) + "\n" for question in questions(per_task))
