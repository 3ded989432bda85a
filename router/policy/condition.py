"""Conditions: CEL expressions over `facts.VARIABLES`, typed when compiled."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from cel_expr_python import cel

from router.policy.facts import VARIABLES, Facts

# How cel-cpp words each fault: position from 1, then text, then the source line, which we do not repeat.
_FAULT = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*?)(?=\n \|| \[[A-Z_]+\]$|\Z)", re.DOTALL)

# Causes that hold nothing of a request. The engine's other messages may quote a value, such as a missing key.
_KNOWN_CAUSES: Final = (
    "divide by zero",
    "modulus by zero",
    "integer overflow",
    "invalid regular expression",
    "Iteration budget exceeded",
    "Key not found in map",
    "No matching overloads found",
    "Index error",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a condition does not compile; line and column within the expression, from 1."""

    line: int
    column: int
    message: str


class ConditionError(ValueError):
    """A condition that does not compile."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


class Scene:
    """One request's facts, made ready for any number of conditions."""

    def __init__(self, facts: Facts) -> None:
        self.activation = _environment().Activation({variable.name: variable.value(facts) for variable in VARIABLES})


class Condition:
    """A compiled expression of type bool."""

    def __init__(self, source: str) -> None:
        """Raises: ConditionError with every fault the type checker found."""
        self.source = source
        try:
            self._program = _environment().compile(source)
        except RuntimeError as exc:
            raise ConditionError(tuple(_faults(str(exc)))) from None
        type_name = self._program.return_type().name()
        if self._program.return_type() != cel.Type.BOOL:
            raise ConditionError((Fault(1, 1, f"the condition is of type {type_name}, not bool"),))

    def evaluate(self, scene: Scene) -> bool | str:
        """The value, or a text that says which kind of error came instead. Never raises."""
        try:
            result = self._program.eval(scene.activation)
            if result.type() == cel.Type.BOOL:
                return bool(result.value())
            detail = str(result.value())
        except Exception as exc:
            detail = str(exc)
        return next((cause for cause in _KNOWN_CAUSES if cause in detail), "evaluation failed")


@cache
def _environment() -> cel.Env:
    return cel.NewEnv(variables={variable.name: variable.type for variable in VARIABLES})


def _faults(message: str) -> Iterator[Fault]:
    found = False
    for match in _FAULT.finditer(message):
        found = True
        text = " ".join(match[3].split()).replace(" (in container '')", "")
        yield Fault(int(match[1]), max(1, int(match[2])), text)
    if not found:
        # Limits of the parser, such as on nesting, come without a position.
        yield Fault(1, 1, message.split(" [")[0].partition(": ")[2].strip())
