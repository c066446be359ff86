"""`python -m bridge`: the command `rhai-bridge`."""

from bridge.cli import bridge

bridge(prog_name="python -m bridge")
