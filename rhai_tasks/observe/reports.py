"""What the processes of a tree tell of themselves: that they live, what has succeeded, what they counted.

Each writes a file of its own anew every second; whoever wants to know of the tree reads them all. Times are of
the machine's monotonic clock, which is the same for all processes.
"""

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .errors import ConfigurationError
from .metrics import Counts
from .readiness import Readiness, overdue
from .threads import vital_thread

REPORT_SECONDS = 1.0
LIVE_SECONDS = 30.0
"""A process that has not reported for so long is stuck: no code of its interpreter ran."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a process told last."""

    process: str
    at: float  # time.monotonic()
    stopping: bool
    succeeded: Mapping[str, float]  # when each thing that it cannot do without last did: time.monotonic()
    gauges: Mapping[str, float]  # by name of the metric
    counts: Counts

    def missing(self) -> list[str]:
        """Name what keeps the process from its work."""
        if self.stopping:
            return ["stopping"]
        if not self.succeeded:
            return ["serves no circle yet"]
        found = overdue(self.succeeded, time.monotonic())
        return [f"no {what} {'yet' if age == inf else f'for {age:.0f} s'}" for what, age in found.items()]


class Reports:
    """The reports of one tree.

    Args:
        directory: Where they are.
        expected: Processes that have to report; whoever else does counts too.
    """

    def __init__(self, directory: Path, expected: Sequence[str] = ()) -> None:
        self._directory = directory
        self._expected = expected

    @classmethod
    def of_siblings(cls) -> Self:
        """Return the reports of the processes that have the same parent as this one.

        Raises:
            ConfigurationError: Somebody else has taken their place.
        """
        parent = os.getppid()
        started = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[19]  # a pid is given out again
        directory = Path(tempfile.gettempdir(), f"rhai-tasks-{os.getuid()}-{parent}-{started}")
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.lstat().st_uid != os.getuid():
            raise ConfigurationError(f"{directory} is not ours; set TMPDIR to a directory that nobody else writes to")
        return cls(directory)

    def remove(self) -> None:
        """Remove them all: the tree ends."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def write(self, process: str, report: Mapping[str, Any]) -> None:
        """Replace a process's report."""
        file = self._file(process)
        new = file.with_suffix(".new")
        with suppress(OSError):  # the tree has ended and the directory is gone; or the disk is full, which ends nobody
            new.write_text(json.dumps(report))
            new.replace(file)

    def read(self, process: str) -> Report | None:
        """Read a process's report; `None` if there is none."""
        try:
            written = json.loads(self._file(process).read_text())
        except FileNotFoundError:
            return None
        return Report(process=process, **{**written, "counts": Counts.from_json(written["counts"])})

    def all(self) -> list[Report]:
        """Read every report, in the order of the processes' names."""
        processes = sorted(file.stem for file in self._directory.glob("*.json"))
        return [report for process in processes if (report := self.read(process))]

    def missing(self) -> list[str]:
        """Say what keeps the tree from its work, a line each; nothing: it is ready."""
        found = {report.process: report for report in self.all()}
        lines = [f"{process}: not started yet" for process in self._expected if process not in found]
        lines += [f"{report.process}: {what}" for report in found.values() for what in report.missing()]
        return lines if found or lines else ["no process reports"]

    def stuck(self) -> list[str]:
        """Name the processes that no longer run, though nobody stopped them; nothing: the tree is alive."""
        now = time.monotonic()
        return [
            f"{report.process}: no sign of life for {now - report.at:.0f} s"
            for report in self.all()
            if not report.stopping and now - report.at > LIVE_SECONDS
        ]

    def _file(self, process: str) -> Path:
        return self._directory / f"{process}.json"


class Reporter:
    """Reports for this process from `start` to `stop`; a context does both.

    A process that takes the place of one that died goes on with what that one counted.

    Args:
        reports: Where to.
        process: Its name.
        readiness: What has succeeded.
        counts: What was counted, if anything is.
        gauges: Tells values of the moment, by name of the metric.
    """

    def __init__(
        self,
        reports: Reports,
        process: str,
        readiness: Readiness,
        counts: Counts | None = None,
        gauges: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._reports, self._process = reports, process
        self._readiness, self._gauges = readiness, gauges
        self._counts = counts or Counts()
        self._ended = threading.Event()
        self._thread = vital_thread("reports", self._run)

    def start(self) -> None:
        """Report at once, and every second from now on."""
        if before := self._reports.read(self._process):
            self._counts.merge(before.counts)
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
        while not self._ended.wait(REPORT_SECONDS if self._readiness.is_ready() else REPORT_SECONDS / 10):
            self._report()
        self._report()

    def _report(self) -> None:
        self._reports.write(
            self._process,
            {
                "at": time.monotonic(),
                "stopping": self._readiness.stopping,
                "succeeded": self._readiness.times(),
                "gauges": dict(self._gauges()),
                "counts": self._counts.to_json(),
            },
        )


@contextmanager
def reports_of_tree(expected: Sequence[str], *, wanted: bool) -> Iterator[Reports | None]:
    """Make a place for the reports of a tree of processes that this one starts; `None` if nobody wants them.

    Raises:
        ConfigurationError: There is none.
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
