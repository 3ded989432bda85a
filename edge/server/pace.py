"""Learns the rates from what the engine's steps bring: how fast prompts go, and answers, alone and side by side."""

from edge.server.pipe import Failed, Finished, Started, Step, Token
from edge.server.rates import Rates


class Pace:
    """Given every step of an engine in order. Times are the engine's own, so a busy server bends nothing."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._prompts: dict[int, int] = {}  # tokens of the prompts at work
        self._prompts_since = 0.0  # when work on those began for which nothing was learned yet
        self._decoding: set[int] = set()  # whose first token is out
        self._last_ended = 0.0

    def follow(self, step: Step) -> None:
        """Learn from the next step."""
        for event in step.events:
            if isinstance(event, Started):
                if not self._prompts:
                    self._prompts_since = step.began_s
                self._prompts[event.job] = event.prompt_tokens
        self._learn_decoding(step)
        self._learn_prompts(step)
        self._decoding -= {event.job for event in step.events if isinstance(event, Finished | Failed)}
        self._last_ended = step.ended_s

    def forget(self) -> None:
        """The engine is gone, and everything that ran in it."""
        self._prompts.clear()
        self._decoding.clear()

    def _learn_decoding(self, step: Step) -> None:
        """Every sequence that decodes waits for every step, also for those that only move a prompt on."""
        if not self._decoding:
            return
        seconds, num_sequences = step.ended_s - self._last_ended, len(self._decoding)
        num_tokens = sum(isinstance(event, Token) and event.job in self._decoding for event in step.events)
        self._rates.total_decode.add(num_tokens, seconds)
        self._rates.decode.add(num_tokens, seconds * num_sequences)
        self._rates.batch.add(seconds * num_sequences, seconds)

    def _learn_prompts(self, step: Step) -> None:
        """Prompts at work share the time: those that end together are learned as one."""
        ends = {event.job: event for event in step.events if not isinstance(event, Started)}
        ends = {job: event for job, event in ends.items() if job in self._prompts}
        if not ends:
            return
        if not any(isinstance(event, Failed) for event in ends.values()):
            reused = sum(event.worked.reused_tokens for event in ends.values() if not isinstance(event, Failed))
            num_tokens = sum(self._prompts[job] for job in ends)
            self._rates.prefill.add(num_tokens - reused, step.ended_s - self._prompts_since)
            self._rates.reuse.add(reused, num_tokens)
        self._prompts_since = step.ended_s
        for job in ends:
            del self._prompts[job]
        self._decoding |= ends.keys()
