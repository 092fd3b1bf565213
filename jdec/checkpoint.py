"""Checkpoints of a running fit: written whole or not at all, checked against a digest when read."""

import contextlib
import hashlib
import json
import logging
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

logger = logging.getLogger(__name__)


class Restored(NamedTuple):
    """A checkpoint as it was saved."""

    step: int
    tree: PyTree
    metadata: dict[str, Any]


class Checkpoints:
    """The checkpoints in one directory, numbered; the newest few are kept.

    Saving goes on in the background; a context manager waits for it on leaving.

    Args:
        directory: Created if need be.
        keep: How many to keep, so that a broken one has a predecessor.

    Raises:
        ValueError: If the directory cannot be made or written to.

    Examples:
        >>> import tempfile, jax.numpy as jnp
        >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
        ...     checkpoints.save(1, {"w": np.ones(2, np.float32)}, {"phase": "finetune"})
        ...     checkpoints.latest(lambda metadata: {"w": jnp.zeros(2)}).metadata
        {'phase': 'finetune'}
    """

    def __init__(self, directory: str | Path, *, keep: int = 2) -> None:
        self.directory = Path(directory).absolute()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            probe = self.directory / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ValueError(
                f"workdir: expected a folder that can be written to, got {self.directory}: "
                f"{error.strerror}"
            ) from error
        # Of several processes, the one that is here writes, and waits for none of the others.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            create=False,
            cleanup_tmp_directories=True,
            multiprocessing_options=alone
            if jax.process_count() > 1
            else ocp.options.MultiprocessingOptions(),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for what is still being written."""
        with _deferred_interrupt():
            self._manager.close()

    def save(self, step: int, tree: PyTree, metadata: Mapping[str, Any]) -> None:
        """Save arrays and JSON metadata under a number; returns before they are on disk.

        Args:
            step: Number of the checkpoint, above those before.
            tree: Pytree of arrays.
            metadata: JSON values.
        """
        # Copies, because the caller goes on, donates the buffers and lengthens its history.
        tree = jax.tree.map(lambda leaf: np.array(leaf, copy=True), tree)
        metadata = json.loads(json.dumps(metadata))
        with _deferred_interrupt():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree),
                    metadata=ocp.args.JsonSave({"digest": _digest(tree, metadata), **metadata}),
                ),
            )

    def latest(self, template: Callable[[dict[str, Any]], PyTree]) -> Restored | None:
        """Restore the newest checkpoint that is whole.

        A broken one is named in a warning of the log and deleted, and the one before is tried.

        Args:
            template: From a checkpoint's metadata, a pytree of the same structure, shapes and
                dtypes as was saved.

        Returns:
            The checkpoint, or None if there is none.

        Raises:
            ValueError: If there are checkpoints but all are broken.
        """
        self._manager.wait_until_finished()
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                with _no_late_errors():
                    restored = self._restore(step, template)
            except Exception as error:  # whatever a damaged file makes of its reader
                reason = str(error).strip().splitlines() or [type(error).__name__]
                logger.warning(
                    "checkpoint %s is damaged and is not used: %s",
                    self.directory / str(step),
                    reason[0][:200],
                )
                continue
            for newer in steps[: steps.index(step)]:
                self._delete(newer)
            return restored
        if steps:
            raise ValueError(
                f"workdir: expected a readable checkpoint in {self.directory}, got only damaged "
                f"ones ({', '.join(map(str, steps))}); start again in another folder"
            )
        return None

    def _restore(self, step: int, template: Callable[[dict[str, Any]], PyTree]) -> Restored:
        read = self._manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))
        metadata = dict(read["metadata"])
        digest = metadata.pop("digest")
        abstract = jax.tree.map(
            lambda leaf: np.empty(leaf.shape, leaf.dtype),
            jax.eval_shape(lambda: template(metadata)),
        )
        read = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        )
        tree = read["state"]
        if _digest(tree, metadata) != digest:
            raise ValueError("its content does not match the digest saved with it")
        return Restored(step, tree, metadata)

    def _delete(self, step: int) -> None:
        try:
            self._manager.delete(step)
        except Exception:  # one too broken for its own library
            shutil.rmtree(self.directory / str(step), ignore_errors=True)
            self._manager.reload()


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[None]:
    # Interrupted halfway, orbax leaves a thread that waits for the rest and keeps the process
    # alive; so Ctrl-C takes effect once the call is over.
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if received:
        handler(*received[0])


@contextlib.contextmanager
def _no_late_errors() -> Iterator[None]:
    # When one array cannot be read, orbax closes its event loop under the reads of the others, and
    # each of those would print a traceback to stderr.
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    except Exception:
        time.sleep(0.2)  # for reads still under way
        raise
    finally:
        sys.unraisablehook = previous


def _digest(tree: PyTree, metadata: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
