"""Training: one step after another from where the state says, with saves, progress and examinations by the clock."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn import functional

from ops.demo.batches import Batch, step_batch
from ops.demo.network.chats import Chats
from ops.demo.network.model import DemoModel, Trunk
from ops.demo.optimizer import Optimizer
from ops.demo.progress import Progress
from ops.demo.recipe import Recipe
from ops.demo.shape import demo_config
from ops.demo.state import State, load_state, save_state
from ops.demo.text import load_tokenizer

SAY_EVERY_S = 10.0
TARGETS_AT_ONCE = 256
NO_TARGET = -100
IN_BFLOAT16 = torch.autocast("cpu", torch.bfloat16)


@dataclass(slots=True)
class Losses:
    """Of a step: nats of a target, of the MTP layer's targets, and the balance loss."""

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
        is_stopped: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Steps until the recipe is done, the time is up or `is_stopped` says so; the state is saved at the end, too.

        `say` is given a line of progress now and then.
        """
        start = saved = examined = said = last = clock()
        while not (self.is_done or is_stopped()) and clock() - start < seconds:
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
        save_state(
            self.folder,
            State(
                self.step,
                self.tokens_seen,
                self._seconds,
                self.model.state_dict(),
                self._optimizer.state(),
                asdict(self.recipe),
            ),
        )

    def _one_step(self) -> tuple[Losses, float, float, int]:
        """The losses, the gradient's length before clipping, the rate and the number of tokens."""
        recipe = self.recipe
        batch = step_batch(
            self.tokenizer, recipe.seed, self.step, tokens=recipe.tokens_per_step, prompt_share=recipe.prompt_share
        )
        with_mtp = recipe.teaches_mtp(self.step, self.tokens_seen)
        losses = Losses()
        batch_loss(self.model, batch, recipe, losses, with_mtp=with_mtp).backward()  # type: ignore[no-untyped-call]
        length = self._optimizer.clip(recipe.clip)
        rate = recipe.rate(self.step, self.tokens_seen)
        self._optimizer.step(rate)
        self.step += 1
        self.tokens_seen += len(batch.ids)
        return losses, length, rate, len(batch.ids)

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


def batch_loss(model: DemoModel, batch: Batch, recipe: Recipe, losses: Losses, *, with_mtp: bool) -> torch.Tensor:
    """A step's loss; its parts are put down in `losses`."""
    ids, chats = torch.from_numpy(batch.ids), Chats.of(batch.lengths)
    targets = torch.from_numpy(batch.is_target).nonzero().squeeze(1)
    with IN_BFLOAT16:
        trunk = model.trunk(ids, chats)
        nats = _nats(model, trunk.hidden, ids, targets, ahead=1)
        loss = nats + recipe.balance_weight * trunk.balance
        if with_mtp:
            further, balance = _mtp_nats(model, trunk, ids, targets[chats.positions[targets] > 1])
            loss = loss + recipe.mtp_weight * further + recipe.balance_weight * balance
            losses.mtp = further.item()
    losses.targets, losses.balance = nats.item(), trunk.balance.item()
    return loss


def _nats(
    model: DemoModel, hidden: torch.Tensor, ids: torch.Tensor, targets: torch.Tensor, *, ahead: int
) -> torch.Tensor:
    """Mean over the targets, each said by what stands `ahead` tokens before it.

    Padded by what does not count: oneDNN makes a kernel for each new number, which takes longer than to run it.
    """
    padding = (0, -len(targets) % TARGETS_AT_ONCE)
    logits = model.head(hidden[functional.pad(targets - ahead, padding)])
    return functional.cross_entropy(
        logits, functional.pad(ids[targets], padding, value=NO_TARGET), ignore_index=NO_TARGET
    )


def _mtp_nats(
    model: DemoModel, trunk: Trunk, ids: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer learns from the trunk and leaves it as it is: guessing on must not cost an answer."""
    following = ids.roll(-1)  # a chat's last token is given the next chat's first, but says no target
    hidden, balance = model.mtp(model.embed(following).detach(), trunk.hidden.detach(), trunk.sequences)
    return _nats(model, hidden, ids, targets, ahead=2), balance
