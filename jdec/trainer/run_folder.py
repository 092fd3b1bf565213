"""A run in its folder: its record, its checkpoints and its history."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jdec._io import read_json, write_json, write_json_lines
from jdec._typing import Params
from jdec.core.autoencoder import network_shapes
from jdec.trainer.checkpoint import Checkpoints
from jdec.trainer.config import Config
from jdec.trainer.fingerprint import check_same_run
from jdec.trainer.history import Reporter
from jdec.trainer.processes import (
    allgather_json,
    broadcast_from_primary,
    is_primary,
    raised_everywhere,
)
from jdec.trainer.programs import init_stage, init_state, pretraining_stages
from jdec.trainer.run import Ended, Run, Saved
from jdec.trainer.workdir import check_no_other_files, explained_writing, lock_folder

_HISTORY_SECONDS = 1.0

#: ``template(phase, about) -> pytree`` of shapes and dtypes of what was saved.
TemplateFn = Callable[[str, dict[str, Any]], PyTree]


def open_run(
    path: Path, mine: Mapping[str, Any], config: Config, resume: bool, stack: ExitStack
) -> Path | None:
    """Lock a folder for a run and leave its record, ``mine``, there; or raise before any change.

    Returns the folder on the process that writes, None on the others.
    """
    path = path.expanduser()
    with raised_everywhere():
        if not is_primary():
            return None
        check_no_other_files(path)
        stack.enter_context(lock_folder(path))
        record = path / "run.json"
        if record.exists():
            check_same_run(record, mine, resume)
            mine = {**read_json(record), **mine}
        with explained_writing():
            write_json(record, mine)  # first: what is beside it is then known to be ours
            write_json(path / "config.json", config.to_dict())
    return path


class Journal:
    """Checkpoints and history of a run, or of one batch of its members; without a folder, nothing.

    Of several processes the first one writes, and all resume from what it reads.
    """

    def __init__(
        self,
        folder: Path | None,
        reporter: Reporter,
        name: str = "checkpoints",
        *,
        seconds: float,
        keep: int = 2,
    ) -> None:
        self.folder, self.reporter, self.n_saved = folder, reporter, 0
        self.seconds = seconds
        self.checkpoints: Checkpoints | None = None
        if folder is not None:
            self.checkpoints = Checkpoints(folder / name, keep=keep)
        self._saved_at = self._written_at = time.monotonic()
        self._place: tuple[str, int] | None = None  # of the newest checkpoint

    def save(
        self, phase: str, step: int, tree: PyTree, about: Mapping[str, Any], at_end: bool
    ) -> None:
        """Write a checkpoint and the history, at the end of a stage or when it is time to."""
        now = time.monotonic()
        if self.checkpoints is None or self._place == (phase, step):
            return
        if not at_end and now - self._saved_at < self.seconds:
            if now - self._written_at >= _HISTORY_SECONDS:
                self.write_history()
            return
        self.n_saved += 1
        metadata = {
            "phase": phase,
            "step": step,
            "about": dict(about),
            "history": self.reporter.history,
            "seconds": self.reporter.seconds,
        }
        with explained_writing():
            self.checkpoints.save(self.n_saved, tree, metadata)
        self.write_history()
        # After the write: a slow disk is not to take more than its share of the time.
        self._saved_at, self._place = time.monotonic(), (phase, step)

    def write_history(self) -> None:
        """Write history.jsonl."""
        if self.folder is not None:
            with explained_writing():
                write_json_lines(self.folder / "history.jsonl", self.reporter.history)
            self._written_at = time.monotonic()

    def restore(self, template: TemplateFn) -> Saved | None:
        """Return the latest valid checkpoint, the same on all processes, and continue its history.

        Raises ValueError if there are checkpoints and none is valid, or one is of another program.
        """
        restored = None
        with raised_everywhere():
            if self.checkpoints is not None:
                restored = self.checkpoints.latest(
                    lambda metadata: template(metadata["phase"], metadata["about"])
                )
        found = None if restored is None else [restored.step, restored.metadata]
        found = allgather_json(found)[0]
        if found is None:
            return None
        self.n_saved, metadata = found
        self._place = (metadata["phase"], metadata["step"])
        self.reporter.history = metadata["history"]
        self.reporter.seconds = metadata["seconds"]
        if restored is None:
            shapes = template(metadata["phase"], metadata["about"])
            tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        else:
            tree = jax.tree.map(jnp.asarray, restored.tree)
        return Saved(
            metadata["phase"], metadata["step"], broadcast_from_primary(tree), metadata["about"]
        )


def template(run: Run, phase: str, about: dict[str, Any], params: Params, kept: Any) -> Any:
    """Return shapes and dtypes of what :func:`pretrain` and :func:`self_train` save.

    ``params`` are pretrained parameters of encoder and decoder, of one member, and ``kept`` what
    ``run.kept`` holds by then: shapes suffice.
    """
    plan = run.plan
    one = replace(plan, members=None)
    stages = {stage.name: stage for stage in pretraining_stages(plan.config, plan.network)}
    if phase in stages:
        state = jax.eval_shape(partial(init_stage, plan=one, stage=stages[phase]), params)
        return state if run.members is None else _stacked(state, len(run.keys.pretraining))
    latent_dim = network_shapes(plan.network, run.x.shape[1]).latent_dim
    centroids = jax.ShapeDtypeStruct((plan.config.n_clusters, latent_dim), jnp.float32)
    # Overrides are numbers: they change no shape.
    state = jax.eval_shape(partial(init_state, plan=one), params, centroids)
    number = jax.ShapeDtypeStruct((), jnp.float32)
    tree = {**kept, "state": state, "label_change": number}
    if run.members is None:
        return tree
    n_left, n_ended = len(about["left"]), len(about["ended"])
    tree = {**kept, **_stacked({"state": state, "label_change": number}, n_left)}
    if n_ended:
        parts: Any = (state.params, state.interval, number, number)
        tree["ended"] = _stacked(Ended(*parts), n_ended)
    return tree


def _stacked(tree: Any, n_members: int) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((n_members, *leaf.shape), leaf.dtype), tree
    )
