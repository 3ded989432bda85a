"""Who guesses tokens: by contract anybody, in fact the model's MTP layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.batch import Batch, Block, Segment
from edge.config import ModelConfig
from edge.errors import StorageError
from edge.layers.mtp import MtpLayer
from edge.model import Model
from edge.state import SequenceState

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

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """For each its guesses: fewer than asked for, or none, where something cannot be read. States stay."""


class MtpDrafter:
    """Guesses greedily: of all single guesses the likeliest token is the likeliest to be right, however it is drawn.

    Between passes the layer's cache has a row for each token but the last; that one waits for its successor as the
    state's last hidden. Guessing writes rows behind these, which `follow` writes anew.
    """

    def __init__(self, config: ModelConfig, model: Model, layer: MtpLayer) -> None:
        self._config = config
        self._model = model
        self._layer = layer

    def follow(self, batch: Batch) -> None:
        """See Drafter. Costs a join and two projections per token, no experts."""
        for block in batch.blocks:
            self._follow_block(batch, block)

    def _follow_block(self, batch: Batch, block: Block) -> None:
        ids, hidden = batch.ids[block.rows], self._model.normalise(batch.x[block.rows])
        segments, before = [], []
        for piece in block.pieces:
            if piece.start >= piece.state.length:
                continue  # a wrong guess
            last = piece.state.last_hidden()
            states = np.concatenate([last[None], hidden[piece.rows]])
            first = int(piece.start == 0)  # before the first token there is nothing
            segments.append(Segment(ids[piece.rows][first:].tolist(), piece.state, at=max(0, piece.start - 1)))
            before.append(states[first:-1])  # each token meets the hidden state of the one before it
            last[...] = states[-1]
            if piece.capture:
                piece.capture.take(len(piece.state.layers) - 1)
        tokens = [token for segment in segments for token in segment.ids]
        if tokens:
            rows = Batch(self._config, segments, self._layer.join(self._model.embed(tokens), np.concatenate(before)))
            for part in rows.blocks:
                self._layer.remember(rows.x[part.rows], part)

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        """See Drafter."""
        drafts: list[list[int]] = [[] for _ in requests]
        active = [index for index, request in enumerate(requests) if request.most]
        tokens = [requests[index].token for index in active]
        hidden = np.array([requests[index].state.last_hidden() for index in active])
        step = 0
        try:
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
