"""Training: one step after another from where the state says, with saves, progress and examinations by the clock."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from ops.demo.batches import Batch, step_batches
from ops.demo.network.model import DemoModel, Trunk
from ops.demo.optimizer import Optimizer
from ops.demo.progress import Progress
from ops.demo.recipe import Recipe
from ops.demo.shape import demo_config
from ops.demo.state import State, load_state, save_state
from ops.demo.text import load_tokenizer

SAY_EVERY_S = 10.0
IN_BFLOAT16 = torch.autocast("cpu", torch.bfloat16)


@dataclass(slots=True)
class Losses:
    """Sums over a step: nats of targets, of the MTP layer's targets, and the balance loss of its batches."""

    targets: float = 0.0
    mtp: float = 0.0
    balance: float = 0.0


class Training:
    """A model, its optimizer and how far they are. `folder` holds the state and the log; it may be empty."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self.tokenizer = load_tokenizer(folder)
        self.model = DemoModel(demo_config(), recipe.seed)
        self._optimizer = Optimizer(self.model, recipe.weight_decay)
        self.step = self.tokens_seen = 0
        self._seconds = 0.0
        if state := load_state(folder):
            self.model.load_state_dict(state.model)
            self._optimizer.load(state.optimizer)
            self.step, self.tokens_seen, self._seconds = state.step, state.tokens_seen, state.seconds

    @property
    def is_done(self) -> bool:
        """Whether all tokens of the recipe were seen."""
        return self.tokens_seen >= self.recipe.tokens

    def run(
        self,
        *,
        seconds: float,
        save_every_s: float,
        examine_every_s: float,
        examine: Callable[["Training"], None],
        say: Callable[[str], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Steps until the recipe is done or the time is up; the state is saved at the end, too.

        `say` is given a line of progress now and then.
        """
        start = saved = examined = said = last = clock()
        while not self.is_done and clock() - start < seconds:
            losses, length, rate, tokens = self._one_step()
            now = clock()
            self._seconds += now - last
            progress = self._report(losses, length, rate, tokens / (now - last))
            if now - said > SAY_EVERY_S:
                say(progress.line(self.recipe.tokens))
                said = now
            if now - saved > save_every_s:
                self.save()
                saved = clock()
            if now - examined > examine_every_s:
                examine(self)
                examined = clock()
            last = clock()
        self.save()

    def save(self) -> None:
        """The state as it is."""
        state = State(self.step, self.tokens_seen, self._seconds, self.model.state_dict(), self._optimizer.state())
        save_state(self.folder, state)

    def _one_step(self) -> tuple[Losses, float, float, int]:
        """The losses, the gradient's length before clipping, the rate and the number of tokens."""
        recipe = self.recipe
        batches = step_batches(
            self.tokenizer,
            recipe.seed,
            self.step,
            tokens=recipe.tokens_per_step,
            tokens_at_once=recipe.tokens_at_once,
            prompt_share=recipe.prompt_share,
        )
        with_mtp = self.tokens_seen >= recipe.mtp_from * recipe.tokens
        num_targets = sum(int(batch.is_target.sum()) for batch in batches)
        losses = Losses()
        for batch in batches:
            loss = batch_loss(self.model, batch, recipe, num_targets, len(batches), losses, with_mtp=with_mtp)
            loss.backward()  # type: ignore[no-untyped-call]
        length = self._optimizer.clip(recipe.clip)
        rate = recipe.rate(self.step, self.tokens_seen)
        self._optimizer.step(rate)
        tokens = sum(int((batch.ids != 0).sum()) for batch in batches)
        self.step += 1
        self.tokens_seen += tokens
        return losses, length, rate, tokens

    def _report(self, losses: Losses, length: float, rate: float, tokens_per_s: float) -> Progress:
        """Appended to the log. After a kill the steps since the last save are there twice; the later ones count."""
        progress = Progress(
            self.step,
            self.tokens_seen,
            losses.targets,
            losses.mtp,
            losses.balance,
            length,
            rate,
            tokens_per_s,
            self._seconds,
        )
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(progress.event()) + "\n")
        return progress


def batch_loss(
    model: DemoModel,
    batch: Batch,
    recipe: Recipe,
    num_targets: int,
    num_batches: int,
    losses: Losses,
    *,
    with_mtp: bool,
) -> torch.Tensor:
    """This batch's part of its step's loss, also added to `losses`; the step has `num_targets` targets."""
    ids, is_target = torch.from_numpy(batch.ids), torch.from_numpy(batch.is_target)
    with IN_BFLOAT16:
        trunk = model.trunk(ids)
        nats = _nats(model, trunk.hidden[:, :-1], ids[:, 1:], is_target[:, 1:]) / num_targets
        balance = trunk.balance / num_batches
        loss = nats + recipe.balance_weight * balance
        if with_mtp:
            further, mtp_balance = _mtp_nats(model, trunk, ids, is_target)
            further = further / num_targets
            loss = loss + recipe.mtp_weight * further + recipe.balance_weight * mtp_balance / num_batches
            losses.mtp += further.item()
    losses.targets += nats.item()
    losses.balance += balance.item()
    return loss


def _nats(model: DemoModel, hidden: torch.Tensor, ids: torch.Tensor, is_target: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(model.head(hidden[is_target]), ids[is_target], reduction="sum")


def _mtp_nats(
    model: DemoModel, trunk: Trunk, ids: torch.Tensor, is_target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer learns from the trunk and leaves it as it is: guessing on must not cost an answer."""
    following = torch.cat((ids[:, 1:], ids[:, :1]), dim=1)  # the last one's is never a target
    hidden, balance = model.mtp(model.embed(following).detach(), trunk.hidden.detach(), trunk.rotated)
    return _nats(model, hidden[:, :-2], ids[:, 2:], is_target[:, 2:]), balance
