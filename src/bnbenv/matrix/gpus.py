"""Finds a GPU by what a person calls it: a name, a compute capability, a gfx target or a PCI id."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from bnbenv.dataclass import replace
from bnbenv.errors import UsageError
from bnbenv.machine.target import Gpu
from bnbenv.units import ComputeCapability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnbenv.matrix.rows import GpuRow

# Without a dot, of three digits only what begins with 10 to 12: `970` is a product.
_CAPABILITY = re.compile(r"(?:sm_?|compute_)?(?:\d{1,2}\.\d|[1-9]\d|1[0-2]\d)", re.IGNORECASE)
_GFX = re.compile(r"(gfx[0-9a-f]{3,4})(?::\w+[+-])*", re.IGNORECASE)  # features behind it tell no target
_MIG = re.compile(r"\s+MIG\s+\d\S*$", re.IGNORECASE)  # a part of a GPU: `MIG 1g.10gb`
_PCI_ID = re.compile(r"(?:(?:0x)?(?P<vendor>10de|1002):|0x)(?P<device>[0-9a-f]{4})", re.IGNORECASE)
_NOISE = re.compile(r"\(tm\)|\(r\)|\b(?:nvidia|amd|geforce|tesla|quadro|radeon|instinct|gpu|graphics)\b")
_OF_AMD = re.compile(r"\b(?:amd|radeon|instinct)\b", re.IGNORECASE)
_OF_NVIDIA = re.compile(r"\b(?:nvidia|geforce|tesla|quadro)\b", re.IGNORECASE)
# `4090`, `1080ti`, `7900 XTX`: the letters of a series go before a number, and are often left out.
_SERIES = frozenset({"rtx", "gtx", "gt", "rx"})
_WORD = re.compile(r"(?:rtx|gtx|gt|rx)(?=\d)|[a-z]*\d+|[a-z]+")
# What tells no chip: `A100-40g`, `24 GB VRAM`, `RTX 4080 desktop`.
_LAPTOP = re.compile(r"\b(?:laptop|notebook|mobile)\b")
_BESIDE = re.compile(rf"\b\d{{1,3}} ?g(?:i?b)?\b|\b(?:vram|desktop)\b|{_LAPTOP.pattern}")
# NVIDIA gave up this brand and kept its numbers: an `RTX 6000` may be of any generation since.
_QUADRO = re.compile(r"\bquadro\b", re.IGNORECASE)
_GENERATION = re.compile(
    r"kepler|maxwell|pascal|volta|turing|ampere|ada(?: lovelace)?|(?:grace )?(?:hopper|blackwell)",
    re.IGNORECASE,
)
_MOST_SHOWN = 8


def find_gpu(rows: Sequence[GpuRow], text: str) -> Gpu:
    """The GPU that a text names.

    Brand words and the letters of a series are optional (``RTX 4090``, ``P40``, ``1080ti``), and so is a
    space; a brand word leaves the other vendor's products out (``Radeon 780M``). Memory and form are passed
    over where no product is called by them (``A100-40g``). A name that fits several products is accepted
    where all of them have the same compute capability or target. A number that `Quadro` bore and later
    products bear too (``RTX 6000``) fits them all.

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
    if _GENERATION.fullmatch(text):
        raise UsageError(
            f"{text!r} is a generation of GPUs, and none by itself",
            hint="name the GPU, such as `--gpu 'RTX 4090'`, or its compute capability, such as `--gpu 8.9`",
            code="bad-target",
        )
    amd, nvidia = bool(_OF_AMD.search(text)), bool(_OF_NVIDIA.search(text))
    named = [(row, _words(row.name)) for row in rows if amd == nvidia or bool(row.gfx) == amd]
    exact, within = _called(named, _words(text))
    if not (exact or within):
        exact, within = _called(named, _words(_BESIDE.sub(" ", text.lower())))
        if _LAPTOP.search(text.lower()):
            exact = []  # What is called just so is a card, and a laptop may have another chip: `GTX 960M`.
    if exact and not _QUADRO.search(text) and any(_QUADRO.search(row.name) for row in exact):
        exact, within = [], list(dict.fromkeys((*exact, *within)))
    found = _single(text, exact or within)
    return found if exact else replace(found, name=text)  # one of several: the person's own word is truest


def _called(
    named: Sequence[tuple[GpuRow, tuple[str, ...]]], wanted: tuple[str, ...]
) -> tuple[list[GpuRow], list[GpuRow]]:
    """The products of exactly these words, and those of these words and more."""
    numbered = wanted[:1] and wanted[0][0].isdigit()
    exact = [
        row
        for row, words in named
        if "".join(words) == "".join(wanted) or (numbered and words[:1] and _unserial(words) == wanted)
    ]
    return exact, [row for row, words in named if wanted and set(wanted) <= set(words)]


def _unserial(words: tuple[str, ...]) -> tuple[str, ...]:
    return words[1:] if words[0] in _SERIES else words


def _is_of(row: GpuRow, vendor: str, device: str) -> bool:
    """Whether a product has that id; both vendors give the same numbers, and AMD's products have a target."""
    return device in row.pci_ids and vendor in ("", "1002" if row.gfx else "10de")


def _words(name: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(_NOISE.sub(" ", name.lower())))


def _single(text: str, found: Sequence[GpuRow], pci_id: str | None = None) -> Gpu:
    if not found:
        raise UsageError(
            f"no GPU is known as {text!r}",
            hint="name its compute capability instead, such as `--gpu 8.9` "
            '("nvidia-smi --query-gpu=compute_cap --format=csv" tells it), or AMD\'s target, such as '
            "`--gpu gfx1100` (`rocminfo` tells it); any GPU of Intel is `--gpu xpu`",
            code="bad-target",
        )
    best = min(found, key=_shortness)
    kinds = {kind for row in found for kind in (row.capabilities or row.gfx)}
    if len(kinds) > 1:
        raise _ambiguous(text, found)
    return Gpu(
        name=best.name,
        compute_capability=best.capabilities[0] if best.capabilities else None,
        gfx=best.gfx[0] if best.gfx else None,
        pci_id=f"{'1002' if best.gfx else '10de'}:{pci_id}" if pci_id else None,
    )


def _ambiguous(text: str, found: Sequence[GpuRow]) -> UsageError:
    """That a name fits several kinds, with the shortest name of each, which can be typed."""

    def letters_beside(row: GpuRow) -> bool:  # `RTX 6000D` is a product of its own
        return any(re.search(rf"{word}[a-z]", row.name, re.IGNORECASE) for word in _words(text))

    shortest: dict[tuple[object, ...], GpuRow] = {}
    for row in sorted(found, key=lambda row: (letters_beside(row), *_shortness(row))):
        shortest.setdefault(row.capabilities or row.gfx, row)
    meant = list(shortest.items())[:_MOST_SHOWN]
    shown = [f"{row.name} ({', '.join(map(str, kinds))})" for kinds, row in meant]
    typed = [word for kinds, row in meant for word in ([row.name] if len(kinds) == 1 else map(str, kinds))]
    return UsageError(
        f"{text!r} fits GPUs of different kinds: {'; '.join(shown)}",
        hint=f"name more of it: {' or '.join(f'`--gpu {shlex.quote(word)}`' for word in typed)}",
        code="bad-target",
    )


def _shortness(row: GpuRow) -> tuple[int, str]:
    return len(row.name), row.name
