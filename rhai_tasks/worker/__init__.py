"""What does a worker process do with a task?"""

from .command import setup

__all__ = ["setup"]
