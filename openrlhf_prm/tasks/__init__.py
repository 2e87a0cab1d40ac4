"""Verifiable toy tasks with an exact step checker, used by the quickstart, the tests and the benchmarks."""
