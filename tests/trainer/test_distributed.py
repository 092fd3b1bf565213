"""The handshake before jax.distributed is initialised; threads stand for processes here."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from jdec.trainer.distributed import initialize_distributed


@pytest.fixture
def joined(monkeypatch):
    """Record calls to JAX, which this process can no longer initialise."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    return calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:1234",), "expected all three or none, got 'localhost:1234', None, None"),
        ((None, 2, 0), "expected all three or none, got None, 2, 0"),
        (("localhost:1234", 2), "expected all three or none"),
        (("localhost:1234", None, 1), "expected all three or none"),
        ((None, None, 0), "expected all three or none, got None, None, 0"),
        (("localhost:1234", 2, 2), "process_id: expected one of 0 … 1, got 2"),
        (("localhost:1234", 2, -1), "process_id: expected an integer >= 0, got -1"),
        (("localhost:1234", 0, 0), "num_processes: expected an integer >= 1, got 0"),
        (("localhost:1234", 2, 0.0), "process_id: expected an integer >= 0, got 0.0"),
        (("localhost", 2, 0), "coordinator: expected HOST:PORT, got 'localhost'"),
        (("localhost:", 2, 0), "coordinator: expected HOST:PORT, got 'localhost:'"),
        ((":1234", 2, 0), "coordinator: expected HOST:PORT, got ':1234'"),
        (("localhost:port", 2, 0), "coordinator: expected HOST:PORT, got 'localhost:port'"),
        (("localhost:65536", 2, 0), "coordinator: expected HOST:PORT, got 'localhost:65536'"),
        (("localhost:0", 2, 0), "coordinator: expected HOST:PORT, got 'localhost:0'"),
    ],
)
def test_invalid_arguments_raise(joined, arguments, message):
    with pytest.raises(ValueError, match=message):
        initialize_distributed(*arguments)
    assert joined == []


def test_arguments_are_passed_to_jax(joined):
    initialize_distributed("[::1]:65535", 1, 0, timeout=20)
    initialize_distributed()
    first, second = joined
    assert first["coordinator_address"] == "[::1]:65535"
    assert (first["num_processes"], first["process_id"]) == (1, 0)
    assert first["initialization_timeout"] == 20
    for name in ("coordinator_address", "num_processes", "process_id"):
        assert second[name] is None


def test_the_heartbeat_timeout_is_at_least_a_second(joined):
    initialize_distributed("localhost:1234", 1, 0, timeout=1)
    initialize_distributed("localhost:1234", 1, 0, timeout=9)
    assert [given["heartbeat_timeout_seconds"] for given in joined] == [1, 4]


@pytest.mark.parametrize("timeout", [0, -3, 0.5])
def test_a_timeout_is_an_integer(joined, timeout):
    with pytest.raises(ValueError, match=f"timeout: expected an integer >= 1, got {timeout}"):
        initialize_distributed("localhost:1234", 2, 0, timeout=timeout)
    assert joined == []


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_a_failed_initialisation_is_one_line(monkeypatch, kind):
    def initialize(**_):
        raise kind("DEADLINE_EXCEEDED: nobody there\nmore about it")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match="coordinator: could not join") as caught:
        initialize_distributed("localhost:1234", 1, 0, timeout=3)
    message = str(caught.value)
    assert "at localhost:1234 within 3 s: DEADLINE_EXCEEDED: nobody there" in message
    assert "\n" not in message


def test_an_unreachable_coordinator_is_reported_in_time(joined):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens there
        address = f"127.0.0.1:{free.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ValueError, match=f"could not reach process 0 at {address} within 1 s"):
            initialize_distributed(address, 2, 1, timeout=1)
    assert 0.9 < time.monotonic() - began < 10
    assert joined == []


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def meet(*processes, port=None, timeout=20):
    """Let each (num_processes, process_id) connect; return its error, or None."""
    address = f"127.0.0.1:{port or free_port()}"

    def one(process):
        try:
            initialize_distributed(address, *process, timeout=timeout)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(one, processes))


def test_all_are_initialised_once_all_are_connected(joined):
    assert meet((3, 2), (3, 0), (3, 1)) == [None] * 3
    assert sorted(given["process_id"] for given in joined) == [0, 1, 2]


def test_a_missing_process_is_reported_to_all(joined):
    began = time.monotonic()
    errors = meet((4, 0), (4, 2), timeout=2)
    assert time.monotonic() - began < 10
    for error in errors:
        assert "expected 4 processes" in error
        assert "got none for process 1, 3" in error
        assert "\n" not in error
    assert joined == []


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        ([(3, 0), (3, 1), (3, 1)], "process_id: 1 was given to two processes"),
        ([(2, 0), (3, 1)], "num_processes: process 1 was started with 3, process 0 with 2"),
    ],
)
def test_different_arguments_are_reported_to_all(joined, processes, message):
    assert meet(*processes) == [message] * len(processes)
    assert joined == []


def test_a_port_in_use_is_reported(joined):
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=rf"a free port .* got 127.0.0.1:{port}: Address"):
            initialize_distributed(f"127.0.0.1:{port}", 2, 0, timeout=5)
    assert joined == []


def test_another_program_at_the_port_is_reported_in_time(joined):
    with socket.create_server(("127.0.0.1", 0)) as server:  # listens, and says nothing
        port = server.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(ValueError, match=r"no answer from process 0 .* another program"):
            initialize_distributed(f"127.0.0.1:{port}", 2, 1, timeout=1)
    assert time.monotonic() - began < 10
    assert joined == []


def test_connections_of_other_programs_are_ignored(joined):
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        everyone = pool.submit(meet, (2, 0), port=port)
        strangers = []
        for message in (b"GET / HTTP/1.1\r\n\r\n", b"[" * 5000 + b"\n", b""):
            while True:
                try:
                    strangers.append(socket.create_connection(("127.0.0.1", port), timeout=5))
                    break
                except OSError:
                    time.sleep(0.05)
            strangers[-1].sendall(message)
        assert meet((2, 1), port=port) == [None]
        assert everyone.result() == [None]
        for stranger in strangers:
            stranger.close()
    assert len(joined) == 2
