"""What a decision looks at in a request's content: sizes, never text."""

from dataclasses import dataclass

from router.request import GenerationRequest


@dataclass(frozen=True, slots=True)
class Features:
    """Sizes of one request."""

    # UTF-8 bytes of all messages.
    prompt_bytes: int
    num_messages: int


def features_of(request: GenerationRequest) -> Features:
    """Half of a surrogate pair, which cannot be encoded, counts as the three bytes it would take."""
    prompt_bytes = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in request.messages)
    return Features(prompt_bytes, len(request.messages))
