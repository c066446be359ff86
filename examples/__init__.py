"""Whole programs to read, run and copy from."""
