"""Finds a GPU by what a person calls it: a name, a compute capability, a gfx target or a PCI id."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.dataclass import replace
from bnbenv.errors import UsageError
from bnbenv.machine.target import Gpu
from bnbenv.units import ComputeCapability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnbenv.matrix.rows import GpuRow

_CAPABILITY = re.compile(r"(?:sm_?|compute_)?\d{1,2}\.?\d", re.IGNORECASE)
_GFX = re.compile(r"(gfx[0-9a-f]{3,4})(?::\w+[+-])*", re.IGNORECASE)  # features behind it tell no target
_MIG = re.compile(r"\s+MIG\s+\d\S*$", re.IGNORECASE)  # a part of a GPU: `MIG 1g.10gb`
_PCI_ID = re.compile(r"(?:(?:0x)?(?P<vendor>10de|1002):|0x)(?P<device>[0-9a-f]{4})", re.IGNORECASE)
_NOISE = re.compile(r"\(tm\)|\(r\)|\b(?:nvidia|amd|geforce|tesla|quadro|radeon|instinct|gpu|graphics)\b")
_MOST_SHOWN = 8


def find_gpu(rows: Sequence[GpuRow], text: str) -> Gpu:
    """The GPU that a text names.

    Brand words are optional (``RTX 4090``, ``P40``). A name that fits several products is accepted where
    all of them have the same compute capability or target.

    Args:
        text: a name, ``8.9``, ``sm_89``, ``gfx1100``, or a PCI id such as ``10de:2684`` or ``1002:744c``.

    Raises:
        UsageError: nothing fits, or what fits differs.
    """
    text = _MIG.sub("", text.strip())
    if _CAPABILITY.fullmatch(text):
        capability = ComputeCapability.parse(text.lower())
        return Gpu(name=f"compute capability {capability}", compute_capability=capability)
    if match := _GFX.fullmatch(text):
        return Gpu(name=match[1].lower(), gfx=match[1].lower())
    if match := _PCI_ID.fullmatch(text):
        vendor, device = (match["vendor"] or "").lower(), match["device"]
        return _single(text, [row for row in rows if _is_of(row, vendor, device.upper())], device.lower())
    wanted = _words(text)
    named = [(row, _words(row.name)) for row in rows]
    exact = [row for row, words in named if "".join(words) == "".join(wanted)]  # `rtx4090` is one too
    within = [row for row, words in named if wanted and set(wanted) <= set(words)]
    found = _single(text, exact or within)
    return found if exact else replace(found, name=text)  # one of several: the person's own word is truest


def _is_of(row: GpuRow, vendor: str, device: str) -> bool:
    """Whether a product has that id; both vendors give the same numbers, and AMD's products have a target."""
    return device in row.pci_ids and vendor in ("", "1002" if row.gfx else "10de")


def _words(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", _NOISE.sub(" ", name.lower())))


def _single(text: str, found: Sequence[GpuRow], pci_id: str | None = None) -> Gpu:
    if not found:
        raise UsageError(
            f"no GPU is known as {text!r}",
            hint='name its compute capability instead, such as `--gpu 8.9`; "nvidia-smi '
            '--query-gpu=compute_cap --format=csv" tells it; any GPU of Intel is `--gpu xpu`',
            code="bad-target",
        )
    kinds = {(row.capabilities, row.gfx) for row in found}
    best = min(found, key=lambda row: (len(row.name), row.name))
    if len(kinds) > 1 or len(best.capabilities) > 1 or len(best.gfx) > 1:
        shown = [
            f"{row.name} ({', '.join(map(str, row.capabilities or row.gfx))})" for row in found[:_MOST_SHOWN]
        ]
        raise UsageError(
            f"{text!r} fits GPUs of different kinds: {'; '.join(shown)}",
            hint="name the compute capability instead, such as `--gpu 6.1`",
            code="bad-target",
        )
    return Gpu(
        name=best.name,
        compute_capability=best.capabilities[0] if best.capabilities else None,
        gfx=best.gfx[0] if best.gfx else None,
        pci_id=f"{'1002' if best.gfx else '10de'}:{pci_id}" if pci_id else None,
    )
