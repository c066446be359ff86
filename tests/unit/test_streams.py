"""Lines are written whole, in order and counted, by whoever forks from whomever."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rhai_tasks.streams import Descriptor, LineWriter
from tests.conftest import wait_until

FORKS = 25  # some of them while another thread holds the lock


def tell(count: int) -> bytes:
    return b"dropped %d\n" % count


class Target:
    """Takes lines while it may, as a pipe does whose reader reads."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.fails = False
        self.lines: list[bytes] = []

    def __call__(self, lines: bytes) -> None:
        self.may.wait()
        if self.fails:
            raise OSError
        self.lines += lines.splitlines()


def test_lines_come_in_order_and_as_many_as_a_pipe_keeps_together() -> None:
    writes: list[bytes] = []
    may = threading.Event()

    def write(lines: bytes) -> None:
        may.wait()
        writes.append(lines)

    writer = LineWriter(write, tell)
    written = [b"%d %s\n" % (number, b"x" * (number * 37 % 5000)) for number in range(200)]
    for line in written:
        writer.write(line)

    may.set()
    writer.flush()

    assert b"".join(writes) == b"".join(written)
    assert all(len(lines) <= 4096 or lines.count(b"\n") == 1 for lines in writes)


def test_what_finds_no_room_is_counted_where_it_was_dropped() -> None:
    target = Target()
    writer = LineWriter(target, tell)
    line = b"x" * 99_999 + b"\n"
    for _ in range(30):
        writer.write(line)
    target.may.set()
    writer.flush()

    writer.write(b"next\n")
    writer.flush()

    *kept, dropped, following = target.lines
    assert set(kept) == {line.strip()}
    assert dropped == b"dropped %d" % (30 - len(kept))
    assert len(kept) in {10, 11}  # one may be on its way already
    assert following == b"next"


def test_what_could_not_be_written_is_counted_before_the_next_line() -> None:
    target = Target()
    target.may.set()
    target.fails = True
    writer = LineWriter(target, tell)
    for _ in range(30):
        writer.write(b"x" * 99_999 + b"\n")
    writer.flush()

    target.fails = False
    writer.write(b"next\n")
    writer.flush()

    assert target.lines == [b"dropped 30", b"next"]


def test_a_line_of_any_length_goes_where_nothing_else_waits() -> None:
    target = Target()
    target.may.set()
    writer = LineWriter(target, tell)

    writer.write(b"x" * 5_000_000 + b"\n")
    writer.flush()

    assert [len(line) for line in target.lines] == [5_000_000]


def test_flush_gives_up_where_nothing_is_taken() -> None:
    writer = LineWriter(Target(), tell)
    writer.write(b"x\n")

    writer.flush()
    for _ in range(1000):  # each of a second would take longer than a test may
        writer.flush()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # of Python 3.12: that is what is tried
def test_a_fork_writes_its_own_lines_and_not_its_parents() -> None:
    reader, descriptor = os.pipe()
    writer = LineWriter(Descriptor(descriptor), tell)
    stop = threading.Event()

    def log() -> None:
        while not stop.is_set():
            writer.write(b"parent\n")

    threads = [threading.Thread(target=log) for _ in range(4)]
    came: list[bytes] = []
    reading = threading.Thread(target=lambda: came.extend(iter(lambda: os.read(reader, 65536), b"")))
    for thread in (reading, *threads):
        thread.start()
    try:
        for number in range(FORKS):
            pid = os.fork()
            if not pid:
                writer.write(b"child %d\n" % number)
                writer.flush()
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        writer.flush()
        os.close(descriptor)
        reading.join()

    lines = b"".join(came).splitlines()
    assert [line for line in lines if line.startswith(b"child")] == [b"child %d" % number for number in range(FORKS)]
    assert {line.split()[0] for line in lines} <= {b"child", b"parent", b"dropped"}


_FULL_DISK = """
import resource, sys
from rhai_tasks.streams import Descriptor, LineWriter
writer = LineWriter(Descriptor(1), lambda count: b"dropped %d\\n" % count)
for limit, count in ((250, 10), (resource.RLIM_INFINITY, 2)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for _ in range(count):
        writer.write(b"x" * 99 + b"\\n")
        writer.flush()
"""


def test_a_line_that_a_full_disk_tore_ends_before_the_next(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", _FULL_DISK], stdout=log, check=True)

    lines = (tmp_path / "log").read_text().splitlines()

    assert lines == ["x" * 99] * 2 + ["x" * 50, "dropped 8"] + ["x" * 99] * 2


def test_without_room_for_a_thread_lines_wait_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target()
    target.may.set()
    with monkeypatch.context() as scarce:

        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        scarce.setattr(threading.Thread, "start", start)
        writer = LineWriter(target, tell)
        writer.write(b"first\n")
        writer.flush()

    writer.write(b"second\n")

    wait_until(lambda: target.lines == [b"first", b"second"])
