"""Findings of the doctor."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, and what to do about it."""

    where: str  # a circle, or the server
    what: str
    remedy: str
    repair: Callable[[], object] | None = None  # repairs only what is still wrong; loses nothing, however late it runs

    @property
    def log_entry(self) -> str:
        """What the log says of its repair."""
        return f"repair {self.where}: {self.what}"
