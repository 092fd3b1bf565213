import errno
import os
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jdec.trainer.workdir import (
    RESULT_FILES,
    check_no_other_files,
    explained_writing,
    lock_folder,
)

# One at a time.


def test_a_folder_is_made_and_goes_again_if_nothing_was_put_into_it(tmp_path):
    folder = tmp_path / "far" / "below"
    with lock_folder(folder):
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
    with lock_folder(str(folder)):
        (folder / "labels.npy").write_text("kept")
    assert [path.name for path in folder.iterdir()] == ["labels.npy"]
    with lock_folder(folder):
        pass
    assert (folder / "labels.npy").read_text() == "kept"


def test_a_folder_that_was_there_stays(tmp_path):
    with lock_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_home_folder_may_be_named_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with lock_folder("~/run"):
        assert (tmp_path / "run").is_dir()
    (tmp_path / "labels.npy").touch()
    with pytest.raises(ValueError, match=r"holds labels\.npy"):
        check_no_other_files("~")


def in_thread(function, *args):
    """Call a function in another thread; return what it raised."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).exception(60)


def take(folder):
    with lock_folder(folder):
        pass


def test_the_same_thread_may_take_it_again_and_no_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    for inner in (tmp_path, str(tmp_path), tmp_path.name, tmp_path / ".." / tmp_path.name):
        with lock_folder(tmp_path):
            with lock_folder(inner):
                assert isinstance(in_thread(take, tmp_path), ValueError)
            # It is the outer one that ends it.
            refusal = in_thread(take, inner)
        assert re.fullmatch(
            rf"workdir: .* is in use by process {os.getpid()} on {re.escape(socket.gethostname())} "
            r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+\d\d:\d\d; wait for it .*",
            str(refusal),
        )
        assert in_thread(take, inner) is None


def test_another_folder_is_free(tmp_path):
    with lock_folder(tmp_path / "a"):
        assert in_thread(take, tmp_path / "b") is None
        assert in_thread(take, tmp_path) is None


def test_it_is_given_back_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), lock_folder(tmp_path):
        raise KeyboardInterrupt
    assert in_thread(take, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_one_of_many_that_start_at_once_gets_it(tmp_path):
    at_work, most, done = [], [], []
    start = threading.Barrier(8)

    def work():
        start.wait()
        for _ in range(50):
            try:
                with lock_folder(tmp_path):
                    at_work.append(1)
                    most.append(len(at_work))
                    at_work.pop()
                    done.append(1)
            except ValueError:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(done) > 8
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys, time
from jdec.trainer.workdir import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_a_killed_process_does_not_block(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"in use by process {process.pid} on "):
            take(tmp_path)
        process.kill()
        process.wait(60)
    assert list(tmp_path.iterdir())  # the file is still there, its lock is not
    take(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, caplog):
    def flock(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    take(tmp_path)
    (record,) = caplog.records
    assert f"{tmp_path} cannot be locked (No locks available)" in record.getMessage()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": 1}', "\0\0"])
def test_a_holder_that_has_not_said_its_name_yet(tmp_path, content):
    with lock_folder(tmp_path):
        (lock,) = tmp_path.iterdir()
        lock.write_text(content)
        with pytest.raises(ValueError, match="is in use by another process; wait"):
            raise in_thread(take, tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ValueError, match="workdir: expected a folder") as caught:
        take(tmp_path / place)
    assert str(tmp_path / place) in str(caught.value)
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("path", ["", "~no-such-user/run", "a\0b", "x" * 300, 3, None, b"run"])
def test_what_is_no_path_is_refused_in_a_line(path):
    for function in (take, check_no_other_files):
        with pytest.raises(ValueError, match="workdir: expected a path") as caught:
            function(path)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_a_link_is_followed_unless_it_leads_nowhere(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("absent")
    with lock_folder(tmp_path / "run"):
        take(tmp_path / "link")
        assert isinstance(in_thread(take, tmp_path / "link"), ValueError)
    for name in ("loop", "dangling"):
        with pytest.raises(ValueError, match=r"workdir: expected a (folder|path)"):
            take(tmp_path / name)


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path):
    left = [tmp_path / f".{name}.a1b2c3.tmp" for name in RESULT_FILES]
    kept = [tmp_path / name for name in (".mine.npy.a1b2c3.tmp", "labels.npy.tmp", ".tmp")]
    for path in left + kept:
        path.write_text("half")
    take(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


# Files of the user's own.


def test_a_folder_of_other_things_is_free(tmp_path):
    check_no_other_files(tmp_path)
    check_no_other_files(tmp_path / "absent")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "my_labels.npy").touch()
    check_no_other_files(tmp_path)


@pytest.mark.parametrize("name", RESULT_FILES)
def test_files_that_are_not_of_a_run_are_named(tmp_path, name):
    if name == "checkpoints":
        (tmp_path / name).mkdir()
    elif name == "labels.npy":
        (tmp_path / name).symlink_to("nowhere")
    else:
        (tmp_path / name).write_text("mine")
    if name == "run.json":
        check_no_other_files(tmp_path)
        return
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path} holds {name} but no run.json")):
        check_no_other_files(tmp_path)


# Failing to write.


@pytest.mark.parametrize(
    ("number", "needed"),
    [
        (errno.ENOSPC, "No space left on device; what was there .*; make room, then resume"),
        (errno.EDQUOT, "make room, then resume"),
        (errno.EFBIG, "make room, then resume"),
        (errno.EROFS, "Read-only file system; resume once it can be written to"),
        (errno.ENOENT, "its folder was removed"),
    ],
)
def test_a_failure_to_write_says_how_to_go_on(number, needed):
    error = OSError(number, os.strerror(number), "run/checkpoints/00000001.npz")
    with (
        pytest.raises(ValueError, match=rf"^workdir: cannot write checkpoint run/.*: .*{needed}$"),
        explained_writing(),
    ):
        raise error
