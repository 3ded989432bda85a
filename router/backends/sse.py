"""Server-sent events, as far as streamed completions use them. Pure."""

from collections.abc import Iterator

# Far above any event of one token; a server that sends no line end must not fill our memory.
MAX_EVENT_BYTES = 1 << 20


class SseError(Exception):
    """The bytes are not the events that were promised."""


class SseReader:
    """Turns pieces of a stream, cut anywhere, into the data of its events."""

    def __init__(self) -> None:
        self._pending = b""
        self._data: list[str] = []
        self._num_bytes = 0

    def feed(self, piece: bytes) -> Iterator[str]:
        """The data of each event that `piece` completes. Raises SseError: not UTF-8, or an event too long."""
        *lines, self._pending = (self._pending + piece).split(b"\n")
        if len(self._pending) > MAX_EVENT_BYTES:
            raise SseError(f"an event has more than {MAX_EVENT_BYTES} bytes")
        for line in lines:
            data = self._line(line.removesuffix(b"\r"))
            if data is not None:
                yield data

    def _line(self, line: bytes) -> str | None:
        if not line:
            data, self._data, self._num_bytes = self._data, [], 0
            return "\n".join(data) if data else None
        # Comments (a leading colon, used as heartbeats) and other fields carry nothing for us.
        if line.startswith(b"data:"):
            self._num_bytes += len(line)
            if self._num_bytes > MAX_EVENT_BYTES:
                raise SseError(f"an event has more than {MAX_EVENT_BYTES} bytes")
            try:
                self._data.append(line[5:].removeprefix(b" ").decode())
            except UnicodeDecodeError:
                raise SseError("an event is not UTF-8") from None
        return None
