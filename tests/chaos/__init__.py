"""The chaos ledger: faults under load, and every task counted. `make chaos` runs it."""
