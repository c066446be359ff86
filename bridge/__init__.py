"""From native lists to dramatiq and back; the drop-in worker."""
