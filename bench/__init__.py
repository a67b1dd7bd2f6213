"""Benchmarks: what docs and notes quote is measured here."""
