"""The reports of a tree's processes, as files: liveness, readiness and counts.

Each process replaces its file every second. Whichever process is asked about the tree reads all files.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.threads import vital_thread

from .recorder import Recorder, Report, read_report

REPORT_SECONDS = 1.0
LIVE_SECONDS = 30.0
"""A process that has not reported for this time is stuck: its interpreter runs no code."""


class Reports:
    """The reports of one tree.

    Args:
        directory: Directory of the files.
        expected: Names of processes that have to report; others may report, too.
    """

    def __init__(self, directory: Path, expected: Sequence[str] = ()) -> None:
        self._directory = directory
        self._expected = expected

    @classmethod
    def of_siblings(cls) -> Self:
        """Return the reports of the processes that have the same parent as this one.

        Raises:
            ConfigurationError: The directory belongs to another user.
        """
        parent = os.getppid()
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]  # a pid is given out again
        directory = Path(tempfile.gettempdir(), f"rhai-tasks-{os.getuid()}-{parent}-{started}")
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.lstat().st_uid != os.getuid():
            raise ConfigurationError(
                f"{directory} belongs to another user; set TMPDIR to a directory that nobody else writes to"
            )
        return cls(directory)

    def remove(self) -> None:
        """Remove all files, when the tree ends."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def write(self, process: str, report: str) -> None:
        """Replace a process's report."""
        file = self._file(process)
        new = file.with_suffix(".new")
        with suppress(OSError):  # the directory is gone with its tree; or the disk is full, which must end no process
            new.write_text(report)
            new.replace(file)

    def read(self, process: str) -> Report | None:
        """Read a process's report; `None` if there is none, or none that this version can read."""
        try:
            return read_report(process, self._file(process).read_bytes())
        except OSError:
            return None

    def read_all(self) -> list[Report]:
        """Read every report, in the order of the processes' names."""
        processes = sorted(file.stem for file in self._directory.glob("*.json"))
        return [report for process in processes if (report := self.read(process))]

    def list_missing(self) -> list[str]:
        """List what keeps the tree from its work; empty: it is ready."""
        found = {report.process: report for report in self.read_all()}
        lines = [f"{process}: not started yet" for process in self._expected if process not in found]
        lines += [f"{report.process}: {what}" for report in found.values() for what in report.list_missing()]
        return lines if found or lines else ["no process reports"]

    def list_stuck(self) -> list[str]:
        """List the processes that have not reported for `LIVE_SECONDS` and do not stop; empty: the tree is alive."""
        now = time.monotonic()
        return [
            f"{report.process}: no sign of life for {now - report.clock:.0f} s"
            for report in self.read_all()
            if not report.stopping and now - report.clock > LIVE_SECONDS
        ]

    def _file(self, process: str) -> Path:
        return self._directory / f"{process}.json"


class Reporter:
    """Writes the report of this process every second from `start` to `stop`; a context calls both.

    A process that takes the place of one that died goes on with the counts of that one.

    Args:
        reports: Reports of the tree.
        process: Name of this process.
        recorder: Recorder of this process.
    """

    def __init__(self, reports: Reports, process: str, recorder: Recorder) -> None:
        self._reports, self._process, self._recorder = reports, process, recorder
        self._ended = threading.Event()
        self._thread = vital_thread("reports", self._run)

    def start(self) -> None:
        """Report at once, and every second from now on."""
        if before := self._reports.read(self._process):
            self._recorder.counts.merge(before.counts)
        self._report()
        self._thread.start()

    def stop(self) -> None:
        """Report for the last time."""
        self._ended.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._ended.wait(REPORT_SECONDS if self._recorder.readiness.is_ready() else REPORT_SECONDS / 10):
            self._report()
        self._report()

    def _report(self) -> None:
        self._reports.write(self._process, self._recorder.report())


@contextmanager
def reports_of_tree(expected: Sequence[str], *, wanted: bool) -> Iterator[Reports | None]:
    """Make a directory for the reports of a tree of processes that this one starts; `None` unless `wanted`.

    Raises:
        ConfigurationError: No directory can be made.
    """
    if not wanted:
        yield None
        return
    try:
        directory = tempfile.TemporaryDirectory(prefix="rhai-tasks-")
    except OSError as error:
        raise ConfigurationError(f"The processes' reports need a directory; set TMPDIR to one: {error}") from error
    with directory as name:
        yield Reports(Path(name), expected)
