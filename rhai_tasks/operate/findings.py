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
    def repaired(self) -> str:
        """The name of its repair in the log."""
        return f"repair {self.where}: {self.what}"
