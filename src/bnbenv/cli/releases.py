"""Releases of torch and bitsandbytes as people write them: ``pytorch=2.9.1``, ``torch2.9``, ``bnb 0.46``."""

from __future__ import annotations

import re

from bnbenv.units import CudaVersion

_CALLED = {"pytorch": "torch", "torch": "torch", "bitsandbytes": "bitsandbytes", "bnb": "bitsandbytes"}
_NAMED = re.compile(r"(?P<name>pytorch|torch|bitsandbytes|bnb)(?![a-z_]|-[a-z])(?P<told>.*)", re.IGNORECASE)
# What stands between a package and its one release: conda's `=`, npm's `@`, the `-` of a file name.
_ONE = re.compile(r"(?:==?|[@:-])?\s*v?(?=\d)", re.IGNORECASE)
_ANY_PATCH = re.compile(r"(?<=\d\.)x\b", re.IGNORECASE)
_BUILD = re.compile(r"[\s+(]+(?P<kind>cu(?:da)?|rocm|cpu|xpu)[\s-]*(?P<number>[\d.]*)\)?$", re.IGNORECASE)


def named_release(text: str) -> tuple[str, str] | None:
    """The package and the specifier of ``pytorch 2.9.1 cu128``; ``None`` where neither package begins it."""
    match = _NAMED.fullmatch(text.strip())
    return (_CALLED[match["name"].lower()], specifier(match["told"])) if match else None


def python_release(told: str) -> str:
    """The version of ``python3.12``, ``py312`` and ``cp312``; what is none is given back."""
    match = re.fullmatch(
        r"(?:c?python[ -]?|py|cp)?(?P<major>3)\.?(?P<rest>\d[\d.]*)", told.strip(), re.IGNORECASE
    )
    return f"{match['major']}.{match['rest']}" if match else told


def specifier(told: str) -> str:
    """A specifier of what is told of one package's release: ``==2.9.*`` of ``2.9.x``, and of ``=2.9.x``.

    What is none is given back, for who reads specifiers to refuse.
    """
    told = _BUILD.sub(_local, told.strip())
    one = _ONE.match(told)
    return f"=={_ANY_PATCH.sub('*', told[one.end() :])}" if one else told


def _local(build: re.Match[str]) -> str:
    """A build as versions name it: ``+cu128`` of ``CUDA 12.8``."""
    kind = build["kind"].lower()
    if not kind.startswith("cu"):
        return f"+{kind}{build['number']}"
    try:
        return f"+{CudaVersion.parse(build['number']).tag}"
    except ValueError:
        return build[0]
