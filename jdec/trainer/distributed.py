"""Joining the processes of a run: who is there is known before JAX is asked to bring them together.

JAX ends a process by a signal where a port is taken or another process never comes. So all meet
first, over plain sockets on the same port, and what is wrong is an error of one line on each.
"""

import contextlib
import json
import socket
import time
from typing import Any

import jax

from jdec._checks import check_integer, shown

_LONGEST_LINE = 4096
_PAUSE = 0.2  # seconds between two tries to reach process 0
_PATIENCE = 2.0  # seconds for whoever called to say who it is


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: int = 60,
) -> None:
    """Join this process to the others of a run, before anything else asks JAX for devices.

    Args:
        coordinator: ``HOST:PORT`` of process 0. Without any of the three, JAX finds out by itself
            where it knows the cluster (SLURM, TPU pods, Open MPI, Kubernetes).
        num_processes: How many there are.
        process_id: Which one this is, from 0.
        timeout: Seconds to wait for the others, and until one that died is noticed.

    Raises:
        ValueError: If only some of the three are given, the timeout is not a whole number of
            seconds from 1 on, the port is taken, or the others do not come in time or were started
            with other numbers.
    """
    check_integer("timeout", timeout)
    given = (coordinator, num_processes, process_id)
    if any(value is None for value in given) and any(value is not None for value in given):
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
            _gather(coordinator, num_processes, until)
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


def _gather(coordinator: str, num_processes: int, until: float) -> None:
    """As process 0: wait for all others, and let them go on, or tell them why not."""
    port = int(coordinator.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(coordinator, port))
        arrived: dict[int, socket.socket] = {}
        refusal = ""
        while len(arrived) < num_processes - 1 and not refusal:
            try:
                server.settimeout(max(0.01, until - time.monotonic()))
                link = stack.enter_context(server.accept()[0])
            except TimeoutError:
                missing = sorted({*range(1, num_processes)} - {*arrived})
                shown = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
                refusal = (
                    f"coordinator: expected {num_processes} processes at {coordinator}, waited in "
                    f"vain for process {shown}; start all of them with the same --coordinator"
                )
                break
            hello = _read_line(link, min(until, time.monotonic() + _PATIENCE))
            if not isinstance(hello, dict) or "jdec" not in hello:
                continue  # whoever that was, it is none of ours
            number: Any = hello.get("process_id")
            if hello.get("num_processes") != num_processes:
                refusal = (
                    f"num_processes: process {number} was started with "
                    f"{hello.get('num_processes')}, process 0 with {num_processes}"
                )
            elif number in arrived or number not in range(1, num_processes):
                refusal = f"process_id: {number} was given to two processes"
            else:
                arrived[number] = link
            if refusal:
                _send_line(link, {"jdec": refusal})
        for link in arrived.values():
            _send_line(link, {"jdec": refusal})
        if refusal:
            raise ValueError(refusal)
        for link in arrived.values():  # they close first, which leaves the port free
            _read_line(link, until)


def _listen(coordinator: str, port: int) -> socket.socket:
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
    """As another process: tell process 0 that this one is there, and wait for its word."""
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
            time.sleep(_PAUSE)
    with link:
        mine = {"process_id": process_id, "num_processes": num_processes}
        _send_line(link, {"jdec": "", **mine})
        # Process 0 may find out at the same moment who is missing, and say so.
        answer = _read_line(link, until + 2 * _PATIENCE)
    if not isinstance(answer, dict) or "jdec" not in answer:
        raise ValueError(
            f"coordinator: no word from process 0 at {coordinator} within {until - began:.0f} s; "
            "it has stopped, waits for others, or another program has that port"
        )
    if answer["jdec"]:
        raise ValueError(str(answer["jdec"]))


def _send_line(link: socket.socket, value: Any) -> None:
    with contextlib.suppress(OSError):  # a process that has gone is missed elsewhere
        link.sendall(json.dumps(value).encode() + b"\n")


def _read_line(link: socket.socket, until: float) -> Any:
    """Return the JSON value of a line, or None where none comes."""
    text = b""
    while not text.endswith(b"\n") and len(text) < _LONGEST_LINE:
        try:
            link.settimeout(max(0.01, until - time.monotonic()))
            part = link.recv(_LONGEST_LINE)
        except OSError:
            return None
        if not part:
            break
        text += part
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16
