"""What contenders are given to do."""

from dataclasses import dataclass

from .contenders import Contender

MOST = 20_000  # tasks of one measurement
CORES = 2  # that a round is planned for; with more it is shorter


def turns(milliseconds: float) -> int:
    """How many turns of an empty loop take so long, at some 0.19 us each."""
    return int(milliseconds * 5200)


def loop(milliseconds: float) -> str:
    """Spell a script that computes for about so long."""
    return f"let x = 0; while x < {turns(milliseconds)} {{ x += 1 }} x"


def large(kibibytes: int) -> str:
    """Spell a script of this size: a table of texts, and one number that differs from task to task."""
    rows = ",\n".join([f'"{"0123456789abcdef" * 4}"'] * (kibibytes * 1024 // 68))
    return f"let rows = [{rows}]; rows.len() + NUMBER"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A queue filled with one kind of script, and drained. NUMBER in the script is the task's own."""

    title: str
    script: str
    computes: float = 0.0  # seconds of CPU of one task, roughly: only to choose how many a round has
    waits: float = 0.0  # seconds that one task blocks
    most: int = MOST

    def count(self, contender: Contender, seconds: float) -> int:
        """Choose how many tasks this contender is given, to be busy for about so long."""
        rates = [float(contender.rate)]
        if self.computes:
            rates.append(min(CORES, contender.parallel) / self.computes)
        if self.waits:
            rates.append(contender.parallel / self.waits)
        return max(10, min(self.most, int(min(rates) * seconds)))


TRIVIAL = "40 + 2"
LONG = loop(50)
SHARE = 0.05  # of long scripts among the mixed ones

DRAINED = {
    "W1": Workload(title="trivial script", script=TRIVIAL),
    "W1d": Workload(title="trivial scripts, each different", script="40 + NUMBER"),
    "W2": Workload(title="scripts of 3 ms CPU", script=loop(3), computes=0.003),
    "W3": Workload(title="scripts that block 20 ms", script="wait(20); 42", waits=0.02),
    "W6": Workload(title="scripts of 256 KiB, each different", script=large(256), computes=0.006, most=600),
}
MIXED = Workload(title="95 % trivial, 5 % of 50 ms", script=TRIVIAL, computes=0.0025)
OTHERS = {
    "W4": "one task at a time on an idle worker",
    "W5": "mixed, at half load: latency of the trivial ones",
    "W7": "submitting",
}
TITLES = {**{name: workload.title for name, workload in DRAINED.items()}, **OTHERS}
