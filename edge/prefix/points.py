"""Where on its way through a prompt a state is worth copying. Pure: values in, values out."""

from collections import OrderedDict
from collections.abc import Sequence

# Beginnings are compared in steps of so many tokens.
BLOCK_TOKENS = 16
# A copy must save at least so many tokens over going on from the one before it: fewer come almost for free in the pass
# that computes the new ones.
MIN_GAIN_TOKENS = 16
# A chat template opens the assistant's turn with a few tokens that it may render otherwise once the turn is history:
# Qwen's `<|im_start|>assistant\n<think>\n\n</think>\n\n` are 7. A copy before them serves in both cases, and also when
# the very same prompt comes again, of which at least the last token has to be computed.
OPENING_TOKENS = 8
# Of all prompts remembered together, about 150 bytes each. One prompt of 262,144 tokens has as many.
MAX_BLOCKS = 16_384


class SeenPrompts:
    """How earlier prompts began, as the names of their first 16, 32, 48, … tokens; the latest MAX_BLOCKS names."""

    def __init__(self, max_blocks: int = MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._names: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._names)

    def meet(self, names: Sequence[bytes]) -> int:
        """Remember a prompt by the names of its blocks; how many of them an earlier prompt began with, too."""
        shared = 0
        while shared < len(names) and names[shared] in self._names:
            shared += 1
        for name in reversed(names[: self._max_blocks]):  # so that a prompt is forgotten from its end
            self._names[name] = None
            self._names.move_to_end(name)
        while len(self._names) > self._max_blocks:
            self._names.popitem(last=False)
        return shared


def copy_points(num_tokens: int, reused: int, shared: int) -> tuple[int, ...]:
    """After how many tokens of a prompt to copy the state, rising.

    The prompt goes on after `reused` tokens; its first `shared` ones began an earlier prompt, too, so that a third one
    may well come: a system prompt is kept when it is seen for the second time. The end is kept for the next turn.
    """
    end = num_tokens - OPENING_TOKENS
    points = []
    if reused + MIN_GAIN_TOKENS <= shared <= end - MIN_GAIN_TOKENS:
        points.append(shared)
    if end >= reused + MIN_GAIN_TOKENS:
        points.append(end)
    return tuple(points)
