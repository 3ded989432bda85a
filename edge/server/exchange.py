"""One request from its arrival to its end: checked, queued, answered token by token."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flashgate.v1 import edge_pb2

from edge.answer import AnswerStream
from edge.deviation import Deviation
from edge.prompt import PromptEncoder
from edge.server import wire
from edge.server.admission import Admission, Completion, Happening, Job, Started
from edge.server.engine_call import Prompt
from edge.server.limits import max_prompt_bytes
from edge.server.observed import Outcome, RequestEnded
from edge.server.rates import Rates
from edge.server.request import Encoded, Received, encode
from edge.tokenizer import SamplingDefaults, Tokenizer

# One at a time: tokenizing holds a multiple of a prompt, which must not be multiplied by the number of callers.
_TOKENIZING = ThreadPoolExecutor(1, thread_name_prefix="tokenizing")

Write = Callable[[edge_pb2.EdgeServiceGenerateResponse], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What serving needs to know of the model; `tokenizer` is None if it has none."""

    name: str
    context_tokens: int
    encoder: PromptEncoder
    tokenizer: Tokenizer | None
    weight_bits: float
    deviation: Deviation | None = None  # from its own answers, that the operator asked for

    @property
    def defaults(self) -> SamplingDefaults:
        """What the model's makers want where a caller says nothing."""
        return SamplingDefaults() if self.tokenizer is None else self.tokenizer.defaults

    async def encode(self, received: Received) -> Encoded:
        """What the engine takes of a request. Raises: RequestError, PromptTooLongError."""
        limit = max_prompt_bytes(self.context_tokens)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(_TOKENIZING, encode, received, self.encoder, self.defaults, limit)
        finally:
            received.drop()  # a call that is given up may stay in the thread's queue for a while

    def answer(self, stops: tuple[str, ...]) -> AnswerStream:
        """A new answer. Raises: RequestError on stop texts that cannot be used."""
        return AnswerStream(self.tokenizer, stops, self.tokenizer.eos_token_ids if self.tokenizer else ())


class Exchange:
    """Made when the request arrives; `run` once. `write` may wait for a slow reader without holding the engine up."""

    def __init__(
        self, model: ServedModel, admission: Admission, rates: Rates, write: Write, clock: Callable[[], float]
    ) -> None:
        self._model, self._admission, self._rates = model, admission, rates
        self._write, self._clock = write, clock
        self._arrived = clock()
        self._started: float | None = None
        self._first_token: float | None = None
        self._last_token: float | None = None
        self._prompt_tokens = 0
        self._completion_tokens = 0
        # Whether nothing but the last message is still to be written: a caller who has read it may leave at once.
        self.is_complete = False

    async def run(self, received: Received) -> None:
        """Answer what was `received`. Raises: the EdgeError that it ends with.

        Cancelling frees the engine at its next layer.
        """
        # Before tokenizing: a node that is full or down says so at once.
        with self._admission.place():
            encoded = await self._model.encode(received)
            answer = self._model.answer(encoded.stops)
            self._prompt_tokens = len(encoded.ids)
            if encoded.prompt_bytes:
                self._rates.prompt_bytes_per_token.add(encoded.prompt_bytes, len(encoded.ids))
            prompt = Prompt(encoded.ids, encoded.sampling, encoded.tenant)
            job = self._admission.submit(prompt, self._model.context_tokens)
        try:
            reason = None
            while reason is None:
                reason = await self._pass_on(job, await job.news(), answer)
            self.is_complete = True
            await self._write(self._finished(job, reason))
        finally:
            job.cancel()

    def is_past(self, limit_s: float | None) -> bool:
        """Whether the request is older than its caller would wait."""
        return limit_s is not None and self._clock() - self._arrived >= limit_s

    def ended(self, outcome: Outcome) -> RequestEnded:
        """The request as far as it came."""
        return RequestEnded(
            outcome=outcome,
            total_s=self._clock() - self._arrived,
            ttft_s=self._since_arrival(self._first_token),
            last_token_s=self._since_arrival(self._last_token),
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
        )

    async def _pass_on(self, job: Job, news: list[Happening], answer: AnswerStream) -> str | None:
        """Write what happened, all new tokens in one message; returns the finish reason once there is one."""
        ids: list[int] = []
        text, reason = "", None
        for happening in news:
            if isinstance(happening, Started):
                self._started = self._clock()
                await self._write(wire.started(self._model.name, self._prompt_tokens, self._model.weight_bits))
            elif isinstance(happening, Completion):
                text, reason = text + answer.finish(), happening.reason
            else:
                piece = answer.push(happening)
                ids += piece.ids
                text += piece.text
                if piece.is_last:
                    job.cancel()  # now: the caller may take long to read the rest, and the engine would go on
                    reason = "stop"
                    break
        self._count(len(ids))
        if ids or text:
            await self._write(wire.tokens(ids, text))
        return reason

    def _count(self, num_tokens: int) -> None:
        if num_tokens:
            self._completion_tokens += num_tokens
            self._last_token = self._clock()
            self._first_token = self._first_token or self._last_token

    def _finished(self, job: Job, reason: str) -> edge_pb2.EdgeServiceGenerateResponse:
        now = self._clock()
        return wire.finished(
            reason,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            queue_s=self._since_arrival(self._started) or 0.0,
            ttft_s=self._since_arrival(self._first_token or now) or 0.0,
            total_s=now - self._arrived,
            worked=job.worked,
            deviation=self._model.deviation,
        )

    def _since_arrival(self, moment: float | None) -> float | None:
        return None if moment is None else moment - self._arrived
