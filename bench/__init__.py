"""Measurements; `make bench` runs them all, `make bench ONLY=name` one. Never timed tests.

Each module has `run() -> list[Figure]`; the runner prints a table and writes `bench/out/NAME.json`.
"""
