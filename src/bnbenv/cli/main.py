"""The entry point."""

from __future__ import annotations


def main() -> int:
    """Run the command line; return the exit code."""
    raise NotImplementedError
