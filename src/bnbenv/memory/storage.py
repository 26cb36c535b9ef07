"""Bytes that a tensor takes: as it is, quantised by bitsandbytes, and as an optimiser's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Scheme = Literal["nf4", "fp4", "int8", "none"]
Optimiser = Literal["adamw_8bit", "paged_adamw_8bit", "adamw_32bit", "paged_adamw_32bit"]

DTYPES: Mapping[str, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
_FLOAT = 4  # scales are float32 throughout
_BLOCK = 64  # elements that share a scale, the default of bitsandbytes on every device
_NESTED_BLOCK = 256  # scales that share a second-level scale
_CODE = 16  # levels of a 4-bit type
_DYNAMIC_CODE = 256  # levels of the 8-bit type
_OPTIMISER_BLOCK = 256  # moments that share a scale
_SMALLEST_8BIT = 4096  # tensors below it keep their moments in 32 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """How the linear layers are kept.

    Attributes:
        scheme: ``none`` leaves them as they are.
        double: the scales of the 4-bit types are quantised as well.
    """

    scheme: Scheme
    double: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedBytes:
    """What one quantised weight takes, each part exact.

    Attributes:
        packed: the codes.
        absmax: the scales: one float32 a block, or one byte a block where they are quantised themselves.
        nested: second-level scales and the offset.
        tables: the lists of levels that the weight's state refers to.
    """

    packed: int
    absmax: int
    nested: int
    tables: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.packed + self.absmax + self.nested + self.tables


def quantised_bytes(shape: tuple[int, int], quantisation: Quantisation) -> QuantisedBytes:
    """What a weight of `shape` (rows, columns) takes once quantised.

    Raises:
        ValueError: the scheme is ``none``.
    """
    rows, columns = shape
    elements = rows * columns
    match quantisation.scheme:
        case "int8":
            return QuantisedBytes(packed=elements, absmax=rows * _FLOAT, nested=0, tables=0)
        case "nf4" | "fp4":
            blocks = -(-elements // _BLOCK)
            packed = -(-elements // 2)
            if not quantisation.double:
                return QuantisedBytes(packed=packed, absmax=blocks * _FLOAT, nested=0, tables=_CODE * _FLOAT)
            return QuantisedBytes(
                packed=packed,
                absmax=blocks,
                nested=-(-blocks // _NESTED_BLOCK) * _FLOAT + _FLOAT,
                tables=(_CODE + _DYNAMIC_CODE) * _FLOAT,
            )
        case _:
            raise ValueError("nothing is quantised")


def optimiser_bytes(elements: int, optimiser: Optimiser) -> int:
    """What the two moments of one trained tensor take."""
    if optimiser.endswith("32bit") or elements < _SMALLEST_8BIT:
        return 2 * elements * _FLOAT
    return 2 * (elements + -(-elements // _OPTIMISER_BLOCK) * _FLOAT)
