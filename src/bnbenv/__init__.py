"""Environments in which bitsandbytes provably computes on the GPU at hand."""

__version__ = "0.1.0"
