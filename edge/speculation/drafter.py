"""Who guesses tokens: by contract anybody, in fact the model's MTP layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.batch import Batch, Piece, Segment
from edge.config import ModelConfig
from edge.errors import StorageError
from edge.layers.mtp import MtpLayer
from edge.model import Model
from edge.state import MOST_BEHIND, Behind, SequenceState

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """What follows `token`, which the state does not count yet? At most `most` guesses."""

    state: SequenceState
    token: int
    most: int


class Drafter(Protocol):
    """Follows what the model computes, and guesses on. Nothing that it does may change an answer."""

    def follow(self, batch: Batch) -> None:
        """`batch` went through the model, and its sequences count what is right of it; called for every pass.

        Raises StorageError for weights that every sequence needs.
        """

    def catch_up(self, states: Sequence[SequenceState]) -> None:
        """Have all in these states that a snapshot of them should hold. Raises StorageError as `follow`."""

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """For each its guesses: fewer than asked for, or none, where something cannot be read. States stay."""


class MtpDrafter:
    """Guesses greedily: of all single guesses the likeliest token is the likeliest to be right, however it is drawn.

    The layer's cache has a row for each token but the last, which waits for its successor as the state's last hidden,
    and but for some that wait to be shown to the layer together: until they are many, or it is asked for a guess.
    Guessing writes rows behind all these, which are written anew when they are known.
    """

    def __init__(self, config: ModelConfig, model: Model, layer: MtpLayer) -> None:
        self._config = config
        self._model = model
        self._layer = layer

    def follow(self, batch: Batch) -> None:
        """See Drafter. Costs a join and two projections per token, no experts."""
        for block in batch.blocks:
            ids, hidden = batch.ids[block.rows], self._model.normalise(batch.x[block.rows])
            due = []
            for piece in block.pieces:
                if piece.start < piece.state.length:  # else it was a wrong guess
                    note(piece, ids[piece.rows].tolist(), hidden[piece.rows])
                    if piece.capture or sum(len(each.ids) for each in piece.state.behind) >= MOST_BEHIND:
                        due.append(piece.state)
            self.catch_up(due)

    def catch_up(self, states: Sequence[SequenceState]) -> None:
        """See Drafter."""
        waiting = [(state, each) for state in {id(state): state for state in states}.values() for each in state.behind]
        if not waiting:
            return
        embedded = self._model.embed([token for _, each in waiting for token in each.ids])
        x = self._layer.join(embedded, np.concatenate([each.hidden for _, each in waiting]))
        batch = Batch(self._config, [Segment(each.ids, state, at=each.at) for state, each in waiting], x)
        for block in batch.blocks:
            self._layer.remember(batch.x[block.rows], block)
        for state in states:
            state.behind.clear()

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """See Drafter."""
        drafts: list[list[int]] = [[] for _ in requests]
        active = [index for index, request in enumerate(requests) if request.most]
        tokens = [requests[index].token for index in active]
        hidden = np.array([requests[index].state.last_hidden() for index in active])
        step = 0
        try:
            self.catch_up([requests[index].state for index in active])
            while active:
                kept, hidden = self._guess([requests[index].state for index in active], tokens, hidden, step)
                active = [active[place] for place in kept]
                tokens = self._model.head(hidden).argmax(axis=1).tolist() if kept else []
                step += 1
                for index, token in zip(active, tokens, strict=True):
                    drafts[index].append(token)
                going = [place for place, index in enumerate(active) if requests[index].most > step]
                active, tokens, hidden = [active[p] for p in going], [tokens[p] for p in going], hidden[going]
        except StorageError as error:
            log.warning("draft_failed", reason=str(error))
        return drafts

    def _guess(
        self, states: Sequence[SequenceState], tokens: Sequence[int], hidden: NDArray[np.float32], step: int
    ) -> tuple[list[int], NDArray[np.float32]]:
        """What the head reads, f32[n, H], of the sequences that could be computed, and their places in `states`."""
        segments = [
            Segment([token], state, at=state.length - 1 + step) for token, state in zip(tokens, states, strict=True)
        ]
        batch = Batch(self._config, segments, self._layer.join(self._model.embed(tokens), hidden))
        hidden = self._layer.forward(batch)
        for error in batch.errors.values():
            log.warning("draft_failed", reason=str(error))
        return batch.kept, hidden


def note(piece: Piece, ids: list[int], hidden: NDArray[np.float32]) -> None:
    """Let the tokens of `piece` wait for the layer, each with the hidden state of the one before it."""
    state, last = piece.state, piece.state.last_hidden()
    before = np.concatenate([last[None], hidden[:-1]])
    first = int(piece.start == 0)  # before the first token of all there is nothing
    if len(ids) > first:
        state.behind.append(Behind(piece.start - 1 + first, ids[first:], before[first:]))
    last[...] = hidden[-1]
    if piece.capture:
        piece.capture.take(len(state.layers) - 1)
