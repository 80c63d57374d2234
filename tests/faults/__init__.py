"""The fault matrix: what breaks on purpose, what was promised for it, and what was seen.

Each test is a row of `matrix.ROWS`; everything runs in processes of its own, on real Redis servers.
"""
