"""Reads a `torch/version.py` without running it: the CUDA, ROCm and version texts that it assigns."""

from __future__ import annotations

import ast


def assigned_texts(source: str) -> dict[str, str]:
    """Name → text of every string that the module assigns, such as ``{"__version__": "2.14.1+cu126"}``.

    Raises:
        ValueError: the source is no Python.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, RecursionError) as error:
        raise ValueError(f"no Python: {error}") from error
    texts: dict[str, str] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str() as text)):
                texts[name] = text
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str() as text)):
                texts[name] = text
            case _:
                pass
    return texts
