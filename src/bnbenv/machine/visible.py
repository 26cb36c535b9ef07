"""Which GPUs the environment variables of a process leave visible: CUDA's and HIP's own rules."""

from __future__ import annotations

import re
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CUDA_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")
HIP_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
_INDEX = re.compile(r"\s*\+?(\d+)")


def cuda_visible(
    names: Sequence[str], uuids: Sequence[Sequence[str]], environ: Mapping[str, str]
) -> tuple[bool | None, ...]:
    """Apply ``CUDA_VISIBLE_DEVICES``.

    The list is read up to its first invalid entry; an entry named twice leaves nothing. An index counts in
    CUDA's order, which is not the driver's (PCI) order on a host with different cards unless
    ``CUDA_DEVICE_ORDER=PCI_BUS_ID``: there an index decides nothing that can be known from here.

    Args:
        names: product names in the driver's order.
        uuids: per GPU, its own UUID first, then those of its MIG instances; nothing where they are unknown.
        environ: the environment of the process.

    Returns:
        One entry a GPU, ``None`` where it cannot be known.
    """
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return (True,) * len(names)
    if _names_unknown_devices(text, uuids):
        return (None,) * len(names)
    chosen, by_index = _choose(text, uuids)
    certain = environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(set(names)) <= 1
    if by_index and not certain and 0 < len(chosen) < len(names):
        return (None,) * len(names)
    return tuple(index in chosen for index in range(len(names)))


def hip_visible(uuids: Sequence[Sequence[str]], environ: Mapping[str, str]) -> tuple[bool | None, ...]:
    """Apply ``ROCR_VISIBLE_DEVICES``, then HIP's own list to what that left.

    HIP takes ``HIP_VISIBLE_DEVICES``, or ``CUDA_VISIBLE_DEVICES`` where the former is unset or empty.

    Args:
        uuids: per GPU, in the order of KFD's nodes; nothing where they are unknown.
        environ: the environment of the process.

    Returns:
        One entry a GPU, ``None`` where it cannot be known.
    """
    left = list(range(len(uuids)))
    rocr = environ.get("ROCR_VISIBLE_DEVICES")
    hip = environ.get("HIP_VISIBLE_DEVICES") or environ.get("CUDA_VISIBLE_DEVICES")
    if any(_names_unknown_devices(text, uuids) for text in (rocr, hip) if text):
        return (None,) * len(uuids)
    if rocr is not None:
        left = _choose(rocr, uuids)[0]
    if hip:
        left = [left[position] for position in _choose(hip, [uuids[index] for index in left])[0]]
    return tuple(index in left for index in range(len(uuids)))


def named_count(text: str, count: int) -> int:
    """How many of `count` GPUs a list names, whichever they are."""
    entries = (entry.strip() for entry in text.split(","))
    return min(len(list(takewhile(lambda entry: _is_device(entry, count), entries))), count)


def _is_device(entry: str, count: int) -> bool:
    number = _INDEX.match(entry)
    return int(number[1]) < count if number else _is_id(entry)


def _is_id(entry: str) -> bool:
    return entry.upper().startswith(("GPU-", "MIG-"))


def _choose(text: str, uuids: Sequence[Sequence[str]]) -> tuple[list[int], bool]:
    """The positions that a list names, and whether it named them by number."""
    chosen: list[int] = []
    by_index = False
    seen: set[str] = set()
    for raw in text.split(","):
        entry = raw.strip()
        position: int | None
        if _is_id(entry):
            position = _by_uuid(entry, uuids)
        elif match := _INDEX.match(entry):  # as strtoul reads it: `1gpu` is 1
            position, by_index = int(match[1]), True
        else:
            break
        if position is None or position >= len(uuids):
            break
        key = entry if entry.upper().startswith("MIG-") else str(position)
        if key in seen:
            return [], by_index
        seen.add(key)
        if position not in chosen:
            chosen.append(position)
    return chosen, by_index


def _names_unknown_devices(text: str, uuids: Sequence[Sequence[str]]) -> bool:
    """Whether something is named that cannot be found: a GPU among such without UUIDs, or a MIG instance.

    nvidia-smi's table does not list the instances.
    """
    entries = [entry.strip() for entry in text.split(",")]
    if any(_is_id(entry) for entry in entries) and not all(uuids):
        return True
    named = any(entry.startswith("MIG-") and not entry.startswith("MIG-GPU-") for entry in entries)
    return named and all(len(own) == 1 for own in uuids)


def _by_uuid(entry: str, uuids: Sequence[Sequence[str]]) -> int | None:
    # Before R470 a MIG instance was named after its GPU: MIG-GPU-<uuid>/<instance>/<part>.
    wanted = entry.removeprefix("MIG-").partition("/")[0] if entry.startswith("MIG-GPU-") else entry
    matches = [
        position
        for position, own in enumerate(uuids)
        if any(uuid.lower().startswith(wanted.lower()) for uuid in own)
    ]
    return matches[0] if len(matches) == 1 else None
