"""The layout of the history: one string a day, with four bytes for each number of each minute."""

MINUTES = 1440
DAYS = 7
"""Days for which the history is kept."""

EXPIRY_SECONDS = (DAYS + 1) * 86400
NUMBER_BYTES = 4
CIRCLE_NUMBERS = 2
"""Of a circle in a minute: how many tasks completed, and how many failed."""


def all_numbers(buckets: int) -> int:
    """Return how many numbers all circles have in a minute: completed, failed, and the buckets of two histograms."""
    return CIRCLE_NUMBERS + 2 * buckets


def history_prefix(namespace: str, buckets: int) -> str:
    """Return the start of the keys of the history; a day since the epoch follows, and `.` and a queue for a circle.

    `buckets`: of a histogram; another number of them is another layout.
    """
    return f"{namespace}:__history__.{buckets}."


def numbers_at(data: bytes, minute: int, count: int) -> list[int]:
    """Read the numbers of a minute of the day; minutes after the end of the string have none."""
    start = minute * count * NUMBER_BYTES
    part = data[start : start + count * NUMBER_BYTES].ljust(count * NUMBER_BYTES, b"\0")
    return [int.from_bytes(part[at : at + NUMBER_BYTES]) for at in range(0, len(part), NUMBER_BYTES)]
