"""What a script prints: its first bytes are kept."""

from rhai_tasks.engine.output import script_logger


class Prints:
    """The first bytes of what one script prints. Threads: that of the script adds, another one reads.

    Args:
        most: How many bytes are kept. A line about the cut comes on top.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = bytearray()
        self._is_cut = False

    def add(self, text: str) -> None:
        """Keep a text that the script prints, as a line, and log it as all prints are."""
        script_logger.debug(text)  # not info: the output of scripts is private by default
        if self._is_cut:
            return
        room = self._most - len(self._kept)
        line = text[:room].encode() + b"\n"  # a character is a byte at least: of a longer text, this is too long, too
        if len(line) <= room:
            self._kept += line
        else:
            self._is_cut = True
            part = line[:room].decode(errors="ignore")  # whole characters
            end = f"{part}\n" if part else ""
            self._kept += f"{end}[cut: it printed more than {self._most} bytes]\n".encode()

    def after(self, position: int, most: int) -> bytes:
        """Return up to `most` of the kept bytes from a position on."""
        return bytes(self._kept[position : position + most])

    def size(self) -> int:
        """Return how many bytes are kept."""
        return len(self._kept)

    def text(self) -> str:
        """Return the kept lines."""
        return self._kept.decode()
