import pytest

from edge.deviation import RoutingCounts
from edge.errors import RequestError
from edge.sampler import SamplingParams
from edge.server import pipe

COUNTERS = pipe.Counters(3, 10, 4096, 0.5, 1, 2, 30, 8, 5, 7.5, 9, 6)


def step(events: bytes) -> bytes:
    return b'{"is":"Step","began_s":1,"ended_s":2,"counters":{},"events":' + events + b"}\n"


WORKED = pipe.Worked(3, 10, 4096, 2, 8, 5, 7.25, 9, 6)
EVENTS: list[pipe.Event] = [
    pipe.Started(7, 12),
    pipe.Token(7, 42, WORKED),
    pipe.Token(8, 43),
    pipe.Finished(7, "stop", WORKED),
    pipe.Failed(8, "StorageError", "layer 3\nchecksum"),
]


@pytest.mark.parametrize(
    "message",
    [
        pipe.Load("/models/ünï code", 2_000_000_000, 4096, 2),
        pipe.Load("/models", 2_000_000_000, 4096, 2, num_sequences=4),
        pipe.Load("/models", 2_000_000_000, 4096, 2, experts_per_token=2, substitute=0.5),
        pipe.Load("/models", 2_000_000_000, 4096, 2, speculate="always", draft_tokens=3),
        pipe.Generate(7, [1, 2, 3], SamplingParams(max_tokens=5, temperature=0.7, seed=2**64 - 1), "tenant"),
        pipe.Cancel(7),
        pipe.Loading(1, 2),
        pipe.Ready("model", 4096, 512, 8, COUNTERS),
        pipe.LoadFailed("PackError", "line\nbreak"),
        pipe.Alive(COUNTERS),
        pipe.Step(1.5, 1.625, EVENTS, COUNTERS),
        pipe.Step(1.5, 1.625, []),
        pipe.Crashed("ValueError"),
    ],
)
def test_every_message_survives_the_pipe_on_one_line(message: pipe.Message) -> None:
    line = pipe.to_line(message)
    assert line.count(b"\n") == 1
    assert pipe.from_line(line) == message


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"canary\n", b"{}\n", b"[]\n", b"3\n", b'{"is":"Canary"}\n', b'{"is":"Cancel"}\n',
     b'{"is":"Cancel","job":1,"canary":2}\n', b'{"is":"Alive","counters":{"canary":1}}\n',
     b'{"is":"Alive","counters":3}\n', b"\xff\xfe\n", step(b"3"), step(b"[3]"), step(b"[[]]"), step(b'[["Canary",1]]'),
     step(b'[["Token",1]]'), step(b'[["Token",1,2' + 20 * b",3" + b"]]"), step(b'[["Failed",1,"canary"]]')],
)  # fmt: skip
def test_what_is_no_message_is_refused_without_quoting_it(line: bytes) -> None:
    with pytest.raises(pipe.PipeError) as caught:
        pipe.from_line(line)
    assert "canary" not in str(caught.value).lower()


def test_sampling_is_validated_on_both_sides() -> None:
    line = pipe.to_line(pipe.Generate(1, [1], SamplingParams())).replace(b'"top_p":1.0', b'"top_p":7.0')
    with pytest.raises(RequestError, match="top_p"):
        pipe.from_line(line)


def test_counters_say_what_was_added_since() -> None:
    before = pipe.Counters(1, 4, 96, 0.25, 1, 1, 10, 2, 1, 2.0, 4, 1)
    added = pipe.Counters(2, 6, 4000, 0.25, 0, 1, 20, 6, 4, 5.5, 5, 5)
    assert COUNTERS.since(before) == added
    assert added.routing == RoutingCounts(6, 4, 5.5)
    assert WORKED.routing == RoutingCounts(8, 5, 7.25)
