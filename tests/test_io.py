"""Files: whole and durable, or not at all; foreign ones are read within limits."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jdec._io import (
    MAX_JSON_SIZE,
    atomic_write,
    parse_json,
    read_json,
    remove_temporaries,
    try_lock,
    write_json,
    write_json_lines,
)

ON_LINUX = Path("/proc/self/fd").exists()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Writing.


@pytest.mark.skipif(not ON_LINUX, reason="names of open files are known on Linux")
def test_all_is_on_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    """Else a power cut can leave an empty file under the final name."""
    calls = []
    fsync, replace = os.fsync, Path.replace

    def spy_on_fsync(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        calls.append(("sync", path, path.stat().st_size if path.is_file() else None))
        fsync(handle)

    def spy_on_replace(path, target):
        calls.append(("rename", path, Path(target)))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", spy_on_fsync)
    monkeypatch.setattr(Path, "replace", spy_on_replace)
    with atomic_write(tmp_path / "a.npy") as file:
        file.write(b"x" * 1000)
        assert names(tmp_path)[0].startswith(".a.npy.")
    (file_synced, renamed, folder_synced) = calls
    assert file_synced[0] == "sync"
    assert file_synced[2] == 1000
    assert renamed == ("rename", file_synced[1], tmp_path / "a.npy")
    assert folder_synced[:2] == ("sync", tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), OSError(28, "full")])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with atomic_write(path, "w") as file:
            file.write("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


# A file that an interrupt leaves open is closed by the collector, or with the process.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:Exception ignored in")
def test_an_interrupt_at_any_line_leaves_the_old_file_or_the_new_one_alone(tmp_path):
    """Ctrl-C may arrive between any two lines, also right after a file was made."""
    path = tmp_path / "a.json"
    sources = {write_json.__code__.co_filename, contextlib.__file__}
    lines = 0

    def interrupt(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename not in sources:
            return None
        if event == "line":
            lines += 1
            if lines == nth:
                raise KeyboardInterrupt
        return interrupt

    kept = set()
    for nth in range(1, 200):
        lines = 0
        write_json(path, "old")
        try:
            sys.settrace(interrupt)
            write_json(path, "new")
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        assert names(tmp_path) == ["a.json"], nth
        kept.add(read_json(path))
        if lines < nth:
            break
    assert lines < nth
    assert lines > 20
    assert kept == {"old", "new"}


@pytest.mark.parametrize("place", ["absent/a.txt", "file/a.txt"])
def test_a_place_that_cannot_be_written_is_named_as_it_was_given(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="directory") as caught, atomic_write(tmp_path / place):
        pass
    assert caught.value.filename == str(tmp_path / place)


def test_what_a_killed_process_left_of_the_same_file_is_removed(tmp_path):
    left = tmp_path / ".a.npy.x1y2z3.tmp"
    kept = [tmp_path / name for name in (".b.npy.x1y2z3.tmp", ".a.npy.tmp", "a.npy.x1y2z3.tmp")]
    for path in (left, *kept):
        path.write_text("half")
    with atomic_write(tmp_path / "a.npy") as file:
        file.write(b"whole")
    assert not left.exists()
    assert all(path.exists() for path in kept)


def test_a_name_is_no_pattern(tmp_path):
    (tmp_path / ".abc.x1y2z3.tmp").write_text("of another file")
    for name in ("*", "a?c", "[a]bc"):
        with atomic_write(tmp_path / name) as file:
            file.write(b"whole")
    assert ".abc.x1y2z3.tmp" in names(tmp_path)


def test_what_another_is_writing_is_left_to_it(tmp_path):
    """Two at one file: the last one to end has it, and neither fails."""
    path = tmp_path / "a.txt"
    with atomic_write(path, "w") as first:
        first.write("first")
        with atomic_write(path, "w") as second:
            second.write("second")
        remove_temporaries(tmp_path, ["a.txt", "*"])
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_many_threads_may_write_one_file(tmp_path):
    failures = []

    def work(number):
        try:
            for _ in range(20):
                write_json(tmp_path / "a.json", {"number": number, "more": [0] * 1000})
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert read_json(tmp_path / "a.json")["number"] in range(4)
    assert names(tmp_path) == ["a.json"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_is_as_readable_as_any_other(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a"):
            pass
        (tmp_path / "b").touch()
    finally:
        assert os.umask(before) == umask  # of the whole process: it is not touched
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


LOCK = """
import os, sys, time
from jdec._io import try_lock
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
print(try_lock(handle), flush=True)
time.sleep(60)
"""


def test_a_lock_is_one_for_all_processes_and_ends_with_its_own(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", LOCK, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        handle = os.open(path, os.O_RDWR)
        assert not try_lock(handle)
        process.kill()
        process.wait(60)
    assert try_lock(handle)
    other = os.open(path, os.O_RDWR)
    assert not try_lock(other)  # of this very process
    os.close(handle)
    assert try_lock(other)
    os.close(other)


@pytest.mark.skipif(os.name != "posix", reason="fcntl is of POSIX")
def test_where_there_are_no_locks_nothing_is_taken_for_left_over(tmp_path, monkeypatch):
    def flock(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    left = tmp_path / ".a.json.x1y2z3.tmp"
    left.write_text("half, or still being written")
    write_json(tmp_path / "a.json", 3)
    assert read_json(tmp_path / "a.json") == 3
    assert left.exists()


# JSON.


def test_numbers_that_are_not_finite_become_null(tmp_path):
    values = {"a": float("nan"), "b": [float("inf"), 1.5, (float("-inf"), {"c": float("nan")})]}
    expected = {"a": None, "b": [None, 1.5, [None, {"c": None}]]}
    write_json(tmp_path / "a.json", values)
    write_json_lines(tmp_path / "a.jsonl", [values, {"d": 1}])
    assert read_json(tmp_path / "a.json") == expected
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [expected, {"d": 1}]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "nul", "[" * 10**5, '{"a":' * 10**5, "9" * 5000, "-" + "9" * 5000, "\x00"],
)
def test_what_is_no_json_is_a_value_error_of_one_line(text):
    with pytest.raises(ValueError, match="expected JSON") as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x80", b"[" * 10**6, b"[]" * MAX_JSON_SIZE])
def test_foreign_files_are_a_value_error_of_one_line(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="expected JSON") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="/dev/zero is of POSIX")
def test_a_file_without_end_is_read_up_to_the_limit():
    with pytest.raises(ValueError, match=f"at most {MAX_JSON_SIZE} bytes, got more"):
        read_json("/dev/zero")


def test_the_limit_of_a_json_file_can_be_set(tmp_path):
    (tmp_path / "a.json").write_text("[1, 2, 3]")
    assert read_json(tmp_path / "a.json", max_size=9) == [1, 2, 3]
    with pytest.raises(ValueError, match="at most 8 bytes"):
        read_json(tmp_path / "a.json", max_size=8)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent.json")
