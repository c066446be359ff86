"""From native lists to dramatiq and back; the drop-in worker."""

from .worker import Args, run_worker_loop

__all__ = ["Args", "run_worker_loop"]
