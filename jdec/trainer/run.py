"""State of a running fit, or of a batch of members of a population."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jdec.core.targets import DECParams, Targets
from jdec.trainer import programs, streaming
from jdec.trainer.history import Record, Reporter
from jdec.trainer.programs import MemberOverrides, Plan, RunKeys
from jdec.trainer.sharding import replicate
from jdec.trainer.streamed_rows import StreamedRows


class NotFiniteError(FloatingPointError):
    """A loss, a weight or an embedding became NaN or infinite."""


class Saved(NamedTuple):
    """State to resume from."""

    phase: str  # a stage of pretraining, or "clustering"
    step: int  # completed steps or intervals
    tree: Any
    about: dict[str, Any]  # JSON values


class Ended(NamedTuple):
    """What is kept of members that have finished, on the host."""

    params: DECParams
    interval: Int[np.ndarray, "E"]
    label_change: Float[np.ndarray, "E"]
    kl: Float[np.ndarray, "E"]


@dataclass(frozen=True)
class Roster:
    """Which members of a batch have finished, by their positions, and what is kept of them."""

    left: Int[np.ndarray, "L"]  # those that are still in the arrays
    order: Int[np.ndarray, "E"] = field(default_factory=lambda: np.zeros(0, int))  # of ``ended``
    ended: Ended | None = None  # stacked; None before the first

    def retire(self, gone: Int[np.ndarray, "G"], state: Ended) -> "Roster":
        """Take some members, by their place in the arrays, out of those that are left."""
        leaving: Ended = jax.tree.map(lambda leaf: leaf[gone], state)
        if self.ended is not None:
            leaving = jax.tree.map(lambda a, b: np.concatenate([a, b]), self.ended, leaving)
        order = np.concatenate([self.order, self.left[gone]])
        return Roster(np.delete(self.left, gone), order, leaving)

    def about(self) -> dict[str, Any]:
        """Return the positions as JSON values, for a checkpoint."""
        return {"left": self.left.tolist(), "ended": self.order.tolist()}


@dataclass
class Run:
    """A running fit, or a batch of members."""

    plan: Plan
    keys: RunKeys  # [M] each for members
    x: Float[Array, "N D"] | StreamedRows  # scaled rows; on the devices with padding
    reporter: Reporter
    # phase, step, tree, about, at_end: a checkpoint, if it is time for one or the end of a stage
    save: Callable[[str, int, Any, dict[str, Any], bool], None]
    overrides: MemberOverrides = MemberOverrides()  # noqa: RUF009 (immutable)
    members: Int[np.ndarray, "M"] | None = None  # their numbers; None for a fit
    kept: dict[str, Any] = field(default_factory=dict)  # more for the checkpoints of self-training
    roster: Roster = field(default_factory=lambda: Roster(np.zeros(0, int)))
    describe: Callable[[Any], Record] = lambda labels: {}  # more for a record of self-training

    @property
    def programs(self) -> Any:
        """The module of the programs for the rows, as they are on the device or on the host."""
        return streaming if isinstance(self.x, StreamedRows) else programs

    def fetch(self, array: Any) -> np.ndarray:
        """Return an array of all rows, [N …] or [M N …] of members, without padding."""
        rows = self.plan.rows
        # A copy, since JAX's own memory is not to be written to.
        return np.array(rows.fetch(array) if self.members is None else array[:, : rows.n_rows])

    @property
    def title(self) -> str:
        """How many members there are, for progress bars."""
        return "" if self.members is None else f" {len(self.members)} members"


def refresh_targets(run: Run, params: DECParams, labels: Any = None) -> tuple[Targets, Any]:
    """Return the targets of all rows, and the sizes of the clusters; at first without labels."""
    if labels is None:  # -1, which no label is
        rows = run.plan.rows
        is_streamed = isinstance(run.x, StreamedRows)
        mine = slice(0, rows.n_rows) if is_streamed else rows.local()
        labels = np.full(mine.stop - mine.start, -1, np.int32)
        labels = labels if is_streamed else rows.put(labels)
        if run.members is not None:
            labels = jnp.broadcast_to(labels, (len(params.centroids), len(labels)))
    return run.programs.refresh(params, labels, run.x, run.overrides, plan=run.plan)


@jax.jit
def copy(tree: Any) -> Any:
    """Return a copy to donate: arrays that were read from a file may not own their memory."""
    return jax.tree.map(jnp.copy, tree)


def to_host(tree: Any) -> Any:
    """Return arrays as NumPy's."""
    return jax.tree.map(np.array, tree)


def placed(run: Run, tree: Any) -> Any:
    """Put the same arrays on all devices of a fit."""
    # The compiler places what has a member axis.
    return replicate(tree, run.plan.rows.mesh) if run.members is None else tree


def mean_losses(losses: Float[np.ndarray, "*M S"]) -> Any:
    """Return the mean loss of the steps: a number, or one for each member."""
    return losses.mean(axis=-1, dtype=np.float64).tolist()


def show(bar: Any, **values: Any) -> None:
    """Show numbers beside a progress bar; lists, of members, are left out."""
    shown = {name: f"{value:.4f}" for name, value in values.items() if isinstance(value, float)}
    bar.set_postfix(shown, refresh=False)


def check_losses(losses: Float[np.ndarray, "S"], phase: str, first_step: int) -> None:
    """Raise unless all losses of a fit are finite: names the first step that is not."""
    broken = ~np.isfinite(losses)
    if broken.any():
        step = first_step + int(np.argmax(broken)) + 1
        raise NotFiniteError(
            f"{phase}: the loss became {losses[broken][0]} at step {step}; lower the learning rate "
            "or scale the data"
        )
