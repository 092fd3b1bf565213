"""Initialises jax.distributed after a handshake between the processes.

JAX kills a process by a signal if a port is in use or another process never connects. So all
processes first connect over plain sockets on the same port, and a failure is a one-line error on
each.
"""

import contextlib
import json
import socket
import time
from typing import Any

import jax

from jdec._checks import check_integer, shown

_LONGEST_LINE = 4096
_RETRY_SECONDS = 0.2  # between two attempts to reach process 0
_HELLO_SECONDS = 2.0  # for a connected process to identify itself


def initialize_distributed(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 60,
) -> None:
    """Initialise jax.distributed; call before any other JAX call.

    Args:
        coordinator: ``HOST:PORT`` of process 0. If all three are None, JAX detects them on the
            clusters that it supports (SLURM, TPU pods, Open MPI, Kubernetes).
        num_processes: Number of processes.
        process_id: Index of this process, from 0.
        timeout: Seconds to wait for the other processes, and to detect one that died.

    Raises:
        ValueError: If only some of the three are given, the timeout is not a positive integer, the
            port is in use, or the other processes do not connect in time or were started with
            different arguments.
    """
    check_integer("timeout", timeout)
    given = (coordinator, num_processes, process_id)
    if 0 < sum(value is None for value in given) < len(given):
        raise ValueError(
            "coordinator, num_processes, process_id: expected all three or none, got "
            f"{', '.join(map(shown, given))}"
        )
    if coordinator is not None and num_processes is not None and process_id is not None:
        check_integer("num_processes", num_processes)
        check_integer("process_id", process_id, minimum=0)
        if process_id >= num_processes:
            raise ValueError(
                f"process_id: expected one of 0 … {num_processes - 1}, got {process_id}"
            )
        if not isinstance(coordinator, str) or not _is_address(coordinator):
            raise ValueError(f"coordinator: expected HOST:PORT, got {shown(coordinator)}")
        until = time.monotonic() + timeout
        if process_id == 0:
            _accept_all(coordinator, num_processes, until)
        else:
            _report_to(coordinator, num_processes, process_id, until)
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=num_processes,
            process_id=process_id,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=max(1, timeout // 2),
            shutdown_timeout_seconds=timeout,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        where = f"at {coordinator} " if coordinator else ""
        raise ValueError(
            f"coordinator: could not join the other processes {where}within {timeout} s: {reason}"
        ) from error


def _accept_all(coordinator: str, num_processes: int, until: float) -> None:
    """On process 0: wait for all others, and send each of them the error, if any."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(coordinator))
        arrived: dict[int, socket.socket] = {}
        error = ""
        while len(arrived) < num_processes - 1 and not error:
            try:
                server.settimeout(max(0.01, until - time.monotonic()))
                link = stack.enter_context(server.accept()[0])
            except TimeoutError:
                missing = sorted({*range(1, num_processes)} - {*arrived})
                shown = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
                error = (
                    f"coordinator: expected {num_processes} processes at {coordinator}, got none "
                    f"for process {shown}; start all of them with the same --coordinator"
                )
                break
            hello = _read_line(link, min(until, time.monotonic() + _HELLO_SECONDS))
            if not isinstance(hello, dict) or "jdec" not in hello:
                continue  # another program
            number: Any = hello.get("process_id")
            theirs = hello.get("num_processes")
            if theirs != num_processes:
                error = (
                    f"num_processes: process {number} was started with {theirs}, "
                    f"process 0 with {num_processes}"
                )
            elif number in arrived or number not in range(1, num_processes):
                error = f"process_id: {number} was given to two processes"
            else:
                arrived[number] = link
            if error:
                _send_line(link, {"jdec": error})
        for link in arrived.values():
            _send_line(link, {"jdec": error})
        if error:
            raise ValueError(error)
        for link in arrived.values():  # the others close first, which leaves the port free
            _read_line(link, until)


def _listen(coordinator: str) -> socket.socket:
    port = int(coordinator.rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise ValueError(
            f"coordinator: expected a free port on this machine, process 0, got {coordinator}: "
            f"{error.strerror or error}"
        ) from error


def _report_to(coordinator: str, num_processes: int, process_id: int, until: float) -> None:
    """On another process: report to process 0 and wait for its answer."""
    host, _, port = coordinator.rpartition(":")
    began = time.monotonic()
    while True:
        try:
            left = max(0.01, until - time.monotonic())
            link = socket.create_connection((host.strip("[]"), int(port)), timeout=min(5, left))
            break
        except OSError as error:
            if time.monotonic() > until:
                raise ValueError(
                    f"coordinator: could not reach process 0 at {coordinator} within "
                    f"{until - began:.0f} s: {error}"
                ) from error
            time.sleep(_RETRY_SECONDS)
    with link:
        hello = {"jdec": "", "process_id": process_id, "num_processes": num_processes}
        _send_line(link, hello)
        # Process 0 may time out at the same moment and report which processes are missing.
        answer = _read_line(link, until + 2 * _HELLO_SECONDS)
    if not isinstance(answer, dict) or "jdec" not in answer:
        raise ValueError(
            f"coordinator: no answer from process 0 at {coordinator} within {until - began:.0f} s; "
            "it has stopped, waits for others, or another program uses that port"
        )
    if answer["jdec"]:
        raise ValueError(str(answer["jdec"]))


def _send_line(link: socket.socket, value: Any) -> None:
    with contextlib.suppress(OSError):  # reported where its answer is read
        link.sendall(json.dumps(value).encode() + b"\n")


def _read_line(link: socket.socket, until: float) -> Any:
    """Return the JSON value of a line, or None if none is received."""
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < _LONGEST_LINE:
            link.settimeout(max(0.01, until - time.monotonic()))
            part = link.recv(_LONGEST_LINE)
            if not part:
                break
            text += part
        return json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16
