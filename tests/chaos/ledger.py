"""Counts every task: what was submitted, how each ended, how often it ran, and whether that was just."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import accumulate

from rich.table import Table

from .guests import Run

CRASHED = "crashed"  # why the runs beside a guest that ends its process may have been in vain
_TOKEN = re.compile(r"<\d+-[\d.]+>")
_DEATHS = re.compile(r"The worker process died (\d+) times")
_LEAST_OTHERS = 100  # tasks of others that begin while a caller waits: fewer do not show an unfair turn
_MARGIN = 2.0  # seconds: what ended so shortly before its process was killed may not have been written yet


@dataclass(frozen=True)
class Expected:
    """How a task has to end."""

    status: str
    text: str = ""  # that the output or error contains; empty: the token of one of its runs


@dataclass(frozen=True)
class Submitted:
    """A task that the server has acknowledged."""

    at: float  # monotonic
    expected: Expected
    caller: str = ""


@dataclass(frozen=True)
class Excuse:
    """Why the runs of some processes in some time may have been in vain, so that their tasks ran again."""

    why: str
    pids: frozenset[int] | None  # None: of all
    began: float
    ended: float
    deadly: bool = True  # each such run counts as a death; else it was given back, or the server has forgotten it

    def holds(self, run: Run) -> bool:
        """Say whether it covers this run."""
        in_time = run.began <= self.ended and (run.ended is None or run.ended >= self.began - _MARGIN)
        return in_time and (self.pids is None or run.pid in self.pids)


@dataclass
class Account:
    """What became of the tasks under one fault; the lists are defects if they are not empty."""

    fault: str
    seconds: float = 0.0
    submitted: int = 0
    completed: int = 0
    error: int = 0
    run_twice: int = 0
    lost_by_server: int = 0  # it acknowledged them, and came back without: not a worker's doing
    recovery: float | None = None  # seconds, the longest; None: nothing had to recover
    bound: float | None = None  # what the recovery is measured against
    lost: list[str] = field(default_factory=list)
    run_twice_for_nothing: list[str] = field(default_factory=list)
    written_twice: list[str] = field(default_factory=list)
    without_reply: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # ended otherwise than its script does
    hung: list[str] = field(default_factory=list)  # trees that did not stop when told to, clients that waited in vain
    forged: list[str] = field(default_factory=list)  # hashes that are nobody's task and were written to
    over_limit: list[str] = field(default_factory=list)  # callers of whom more tasks ran at once than they may
    starved: list[str] = field(default_factory=list)  # callers of whom no task began while others' tasks did
    failed: list[str] = field(default_factory=list)  # faults that could not be brought about

    def defects(self) -> list[str]:
        """Say what must not be."""
        found = [
            f"{self.fault}: {len(tasks)} {what}: {' '.join(tasks[:5])}"
            for what, tasks in (
                ("lost", self.lost),
                ("run twice, and their processes were neither killed nor cut off", self.run_twice_for_nothing),
                ("with two final writes", self.written_twice),
                ("with a final status and no reply", self.without_reply),
                ("with a wrong end", self.wrong),
                ("hung", self.hung),
                ("hashes forged", self.forged),
                ("over their limit", self.over_limit),
                ("starved", self.starved),
                ("faults that could not be brought about", self.failed),
            )
            if tasks
        ]
        if self.submitted != self.completed + self.error + len(self.lost) + self.lost_by_server:
            found.append(f"{self.fault}: the sum does not hold")
        if self.recovery is not None and self.bound is not None and self.recovery > self.bound:
            found.append(f"{self.fault}: recovery took {self.recovery:.1f} s, more than {self.bound:g} s")
        return found


def balance(
    account: Account,
    submitted: Mapping[str, Submitted],
    details: Mapping[str, Mapping[str, str]],
    replies: Mapping[str, int],
    runs: Mapping[str, list[Run]],
    excuses: Iterable[Excuse],
    silences: Iterable[tuple[float, float]] = (),
) -> None:
    """Fill in an account.

    Args:
        account: Is filled.
        submitted: By task.
        details: By task: the details hash, empty if there is none.
        replies: By task: how many replies came; each comes with a final write, in one step.
        runs: By task, in order.
        excuses: Of this fault.
        silences: From when to when the server refused replies: a task that ended then may have none, as documented.
    """
    excuses, silences = list(excuses), list(silences)
    account.submitted = len(submitted)
    for task, sent in submitted.items():
        found, its_runs = details[task], runs.get(task, [])
        if not found and any(excuse.pids is None and excuse.began <= sent.at <= excuse.ended for excuse in excuses):
            account.lost_by_server += 1
            continue
        status = found.get("status")
        if status not in {"completed", "error"}:
            account.lost.append(task)
            continue
        account.completed += status == "completed"
        account.error += status == "error"
        if replies.get(task, 0) > 1:
            account.written_twice.append(task)
        if not replies.get(task, 0) and not any(_ended_between(its_runs, *silence) for silence in silences):
            account.without_reply.append(task)
        text = found.get("output" if status == "completed" else "error", "")
        if not _as_expected(sent.expected, status, text, its_runs, excuses):
            account.wrong.append(f"{task} ({status}: {text[:100]!r}; {_tell(its_runs, excuses)})")
        if len(its_runs) > 1:
            account.run_twice += 1
            if not all(any(excuse.holds(run) for excuse in excuses) for run in _in_vain(its_runs, text)):
                account.run_twice_for_nothing.append(f"{task} ({_tell(its_runs, excuses)})")


def over_limit(
    submitted: Mapping[str, Submitted],
    runs: Mapping[str, list[Run]],
    excuses: Iterable[Excuse],
    limit: int,
    unruled: Collection[int] = (),
) -> list[str]:
    """Name the callers of whom more tasks ran at once than `limit`, beside those of the processes `unruled`.

    The run of a process that was killed, frozen or cut off counts until that: its task may run elsewhere afterwards.
    Guests do not count: a limit of the engine that ends them leaves no trace of when.
    """
    excuses, events = list(excuses), dict[str, list[tuple[float, int]]]()
    for task, sent in submitted.items():
        for run in [] if sent.expected.text else runs.get(task, []):
            if run.pid in unruled:
                continue
            ends = [excuse.began for excuse in excuses if excuse.holds(run)]
            ends += [] if run.ended is None else [run.ended]
            if ends:  # else it was killed, and nobody knows when
                of_caller = events.setdefault(sent.caller, [])
                of_caller += [(run.began, 1), (max(min(ends), run.began), -1)]
    found = []
    for caller, steps in events.items():
        most = max(accumulate(step for _, step in sorted(steps)))
        if most > limit:
            found.append(f"{caller} ({most} of {limit})")
    return found


def starved(submitted: Mapping[str, Submitted], runs: Mapping[str, list[Run]], seconds: float) -> list[str]:
    """Name the callers of whom a task waited, and none began, for longer than `seconds` while many of others began."""
    waits = {task: (sent.caller, sent.at, runs[task][0].began) for task, sent in submitted.items() if runs.get(task)}
    all_begins = sorted(began for _, _, began in waits.values())
    begins = dict[str, list[float]]()
    for caller, _, began in sorted(waits.values(), key=lambda wait: wait[2]):
        begins.setdefault(caller, []).append(began)
    found = dict[str, str]()
    for task, (caller, at, began) in waits.items():
        place = bisect_left(begins[caller], began)
        since = max(at, begins[caller][place - 1]) if place else at  # no task of the caller began from then on
        others = bisect_left(all_begins, began) - bisect_right(all_begins, since)
        if began - since > seconds and others >= _LEAST_OTHERS:
            found[caller] = f"{caller} ({task}: {began - since:.1f} s, {others} tasks of others)"
    return list(found.values())


def changed(written: Mapping[str, Mapping[str, str]], found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Name the hashes that are not as they were written, and say what they have become; a server may lose some."""
    return [f"{name} ({dict(found[name])})" for name, fields in written.items() if found[name] not in ({}, fields)]


def _ended_between(runs: list[Run], began: float, ended: float) -> bool:
    return any(run.ended is None or began - 2 * _MARGIN <= run.ended <= ended for run in runs)


def _as_expected(expected: Expected, status: str, text: str, runs: list[Run], excuses: list[Excuse]) -> bool:
    if found := _DEATHS.match(text):
        return _died(int(found[1]), runs, excuses, by_itself=bool(expected.text) and expected.text in text)
    if status != expected.status:
        return False
    return expected.text in text if expected.text else _written(runs, text) is not None


def _died(times: int, runs: list[Run], excuses: list[Excuse], *, by_itself: bool) -> bool:
    """Say whether processes have died so often under a task, and not each time because of a neighbour.

    A guest that crashes takes others along at first, and perhaps as one suspect among others; never as its verdict.
    """
    reasons = [[excuse for excuse in excuses if excuse.holds(run)] for run in runs]
    least = sum(all(excuse.deadly for excuse in found) for found in reasons)
    most = len(runs) + 1  # the first process may have died before it began with the task
    taken_along = sum(all(excuse.why == CRASHED for excuse in found) for found in reasons)
    return least <= times <= most and (by_itself or (all(reasons) and taken_along < times))


def _tell(runs: list[Run], excuses: list[Excuse]) -> str:
    """Name runs, each with its excuses."""
    told = (f"{run}: {', '.join(e.why for e in excuses if e.holds(run)) or 'no excuse'}" for run in runs)
    return "; ".join(told) or "never run"


def _written(runs: list[Run], text: str) -> Run | None:
    tokens = _TOKEN.findall(text)
    return next((run for run in runs if run.token in tokens), None)


def _in_vain(runs: list[Run], text: str) -> list[Run]:
    """List the runs whose result does not stand in the details."""
    written = _written(runs, text) or runs[-1]
    return [run for run in runs if run is not written]


def as_table(title: str, accounts: Iterable[Account]) -> Table:
    """Show accounts, a row each."""
    table = Table(title=title, title_justify="left")
    table.add_column("fault", no_wrap=True)
    for name in ("s", "submitted", "completed", "error", "lost", "lost by\nserver", "run twice", "of them\nunjustly"):
        table.add_column(name, justify="right")
    for name in ("written\ntwice", "wrong\nend", "hung", "forged", "over\nlimit", "starved", "recovery s", "bound s"):
        table.add_column(name, justify="right")
    for account in accounts:
        numbers = (
            *(account.submitted, account.completed, account.error, len(account.lost), account.lost_by_server),
            *(account.run_twice, len(account.run_twice_for_nothing), len(account.written_twice), len(account.wrong)),
            *(len(account.hung), len(account.forged), len(account.over_limit), len(account.starved)),
        )
        table.add_row(
            account.fault,
            f"{account.seconds:.0f}",
            *map(str, numbers),
            "-" if account.recovery is None else f"{account.recovery:.1f}",
            "-" if account.bound is None else f"{account.bound:g}",
            style="red" if account.defects() else "",
        )
    return table


def as_json(account: Account) -> dict[str, object]:
    """Turn an account into what JSON takes."""
    return asdict(account)
