"""How do tasks get from native lists to dramatiq, and which processes do that?"""

from .worker import Args, run_worker_loop

__all__ = ["Args", "run_worker_loop"]
