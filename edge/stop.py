"""Ends a streamed text before the first of some stop texts, however the stream is cut into pieces."""

from collections.abc import Sequence

from edge.errors import RequestError

MAX_STOPS = 16
MAX_STOP_CHARS = 1024


class StopScanner:
    """Lets text through, holding back an end that may be the beginning of a stop text.

    The first stop text to be complete ends the stream; of several complete at one character, the longest does.
    Raises: RequestError on more than 16 stop texts, an empty one, or one of more than 1,024 characters.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if len(stops) > MAX_STOPS:
            raise RequestError(f"stop has {len(stops)} texts: at most {MAX_STOPS} are allowed")
        if not all(stops):
            raise RequestError("stop has an empty text, which would end every answer at once")
        longest = max(map(len, stops), default=0)
        if longest > MAX_STOP_CHARS:
            raise RequestError(f"stop has a text of {longest} characters: at most {MAX_STOP_CHARS} are allowed")
        self._stops = tuple(stops)
        self._held = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """The part of everything pushed so far that is now certain to be in the answer. After the stop: ""."""
        if self.is_stopped:
            return ""
        self._held += text
        cut = self._stop_position()
        if cut is not None:
            self.is_stopped = True
            kept, self._held = self._held[:cut], ""
            return kept
        cut = len(self._held) - self._pending_chars()
        certain, self._held = self._held[:cut], self._held[cut:]
        return certain

    def finish(self) -> str:
        """What was held back, once no more text will come."""
        rest, self._held = self._held, ""
        return rest

    def _stop_position(self) -> int | None:
        """Where the stop text begins that is the first to be complete."""
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _pending_chars(self) -> int:
        """The longest end of the held text that some stop text begins with."""
        return max((_overlap(self._held, stop) for stop in self._stops), default=0)


def _overlap(text: str, stop: str) -> int:
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
