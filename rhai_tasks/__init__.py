"""Run Rhai jobs from a Redis queue, in the real Rhai engine."""
