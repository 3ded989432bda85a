"""The stand-in itself: answers a request with the stated text, at the scenario's pace and with its failures."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import structlog

from cloud_stub.answer import FinishReason, compose
from cloud_stub.errors import CutError, InjectedError, StoppingError
from cloud_stub.metrics import Metrics
from cloud_stub.request import ChatRequest
from cloud_stub.scenario import FailureDice, Scenario

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Delta:
    """One token's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer; always the last event."""

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class Cloud:
    """Answers both protocols' requests. One event loop; any number of requests at once."""

    def __init__(
        self, model: str, text: str, scenario: Scenario, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.model = model
        self._text = text
        self._scenario = scenario
        self._dice = FailureDice(scenario)
        self._metrics = metrics
        self._clock = clock
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End the requests that hang: they would outlast any drain."""
        self._stopping.set()

    async def generate(self, request: ChatRequest) -> AsyncGenerator[Delta | Finished, None]:
        """Stream one answer.

        Raises: InjectedError or StoppingError before the first event, CutError after any number of them.
        """
        course = _Course(request, self._metrics, self._clock)
        error_type = "cancelled"
        try:
            await self._meet_failure()
            answer = compose(self._text, request.sampling.max_tokens, request.sampling.stop)
            for index, token in enumerate(answer.tokens):
                self._cut(index)
                await asyncio.sleep(self._scenario.gap_s if index else self._scenario.ttft_s)
                course.token()
                yield Delta(token)
            self._cut(len(answer.tokens))
            error_type = ""
            yield Finished(answer.finish_reason, request.prompt_tokens, len(answer.tokens))
        except InjectedError:
            error_type = "status"
            raise
        except CutError:
            error_type = "cut"
            raise
        except StoppingError:
            error_type = "stopping"
            raise
        finally:
            course.end(error_type)

    async def _meet_failure(self) -> None:
        status = self._dice.throw()
        if status is not None:
            raise InjectedError(status)
        if self._scenario.hang:
            await self._stopping.wait()
            raise StoppingError("the cloud stub is stopping")

    def _cut(self, num_sent: int) -> None:
        if self._scenario.cut_after == num_sent:
            raise CutError(f"this break after {num_sent} tokens was asked for")


class _Course:
    """Times one request and reports it once, to the metrics and the log."""

    def __init__(self, request: ChatRequest, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._request_id = request.request_id
        self._metrics = metrics
        self._clock = clock
        self._start = clock()
        self._ttft_s: float | None = None
        self._num_tokens = 0
        metrics.started(request.prompt_tokens)

    def token(self) -> None:
        self._num_tokens += 1
        if self._ttft_s is None:
            self._ttft_s = self._clock() - self._start
            self._metrics.first_token(self._ttft_s)

    def end(self, error_type: str) -> None:
        duration_s = self._clock() - self._start
        self._metrics.finished(duration_s, self._ttft_s, self._num_tokens, error_type)
        log.info(
            "request_finished",
            request_id=self._request_id,
            error_type=error_type,
            completion_tokens=self._num_tokens,
            duration_s=round(duration_s, 6),
        )
