"""Benchmarks against published code; see README.md in this folder and docs/benchmarks.md."""
