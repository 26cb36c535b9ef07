"""What a checkpoint will take once quantised, from the shapes of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.errors import UsageError
from bnbenv.memory.safetensors import BITS
from bnbenv.memory.storage import DTYPES, Quantisation, quantised_bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from bnbenv.memory.checkpoint import Checkpoint
    from bnbenv.memory.safetensors import StoredTensor

# Types that a weight can be quantised from: what is smaller has been quantised already.
_ORIGINALS = frozenset({"F32", "F16", "BF16", "F64"})


def refuse_quantised(checkpoint: Checkpoint) -> None:
    """Stop before quantising what is no original.

    Raises:
        UsageError: code ``bad-model``; the checkpoint is quantised already, or of a type that cannot be.
    """
    settings = checkpoint.config.get("quantization_config")
    if isinstance(settings, dict):
        method = str(settings.get("quant_method", "another method"))[:40]
        raise UsageError(
            f"`{checkpoint.directory}` is quantised already ({method}): a second loss would be added",
            hint="quantise from the original weights",
            code="bad-model",
        )
    odd = next(
        (
            tensor
            for tensor in checkpoint.tensors
            if tensor.name.endswith(".weight") and len(tensor.shape) == 2 and tensor.dtype not in _ORIGINALS
        ),
        None,
    )
    if odd is not None:
        raise UsageError(
            f"`{odd.name}` in `{odd.file}` is of type {odd.dtype}, which bitsandbytes cannot quantise from",
            hint="quantise from weights in bfloat16, float16 or float32",
            code="bad-model",
        )


def quantised_size(
    checkpoint: Checkpoint, layers: Collection[str], quantisation: Quantisation, dtype: str
) -> int:
    """Bytes of the tensors that will be written.

    Args:
        layers: names of the layers that are quantised, without ``.weight``.
        dtype: of what is not quantised.
    """
    return sum(_size(tensor, layers, quantisation, DTYPES[dtype]) for tensor in checkpoint.tensors)


def _size(tensor: StoredTensor, layers: Collection[str], quantisation: Quantisation, width: int) -> int:
    if tensor.name.removesuffix(".weight") in layers and len(tensor.shape) == 2:
        rows, columns = tensor.shape
        return quantised_bytes((rows, columns), quantisation).total
    if tensor.dtype in _ORIGINALS:
        return tensor.bytes * 8 // BITS[tensor.dtype] * width
    return tensor.bytes
