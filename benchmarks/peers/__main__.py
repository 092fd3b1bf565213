"""Run one peer once: ``python -m benchmarks.peers GROUP NAME TASK.json``."""

import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks.peers import PEERS, Task


def main(group: str, name: str, task_file: str) -> None:
    """Print the peer's figures, or why it is absent."""
    peer = PEERS[group][name]
    task = Task.from_dict(json.loads(Path(task_file).read_text()))
    if hasattr(os, "sched_setaffinity"):
        # XLA has no setting for its number of threads; it takes the cores that it may run on.
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[: task.threads])
    try:
        module = importlib.import_module(f"benchmarks.peers.{peer.module}")
    except Exception as error:  # a library can fail in any way while it is imported
        print(json.dumps({"absent": f"{type(error).__name__}: {error}".splitlines()[0]}))
        return
    print(json.dumps(getattr(module, peer.function)(task, **peer.options)))


if __name__ == "__main__":
    main(*sys.argv[1:])
