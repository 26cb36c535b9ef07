"""The environment variables that can make a sound installation compute wrongly, or not at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# What is loaded, which kernels are chosen and how memory is handed out; never which devices are visible.
_SUSPECT = re.compile(
    r"BNB_\w+|BITSANDBYTES_\w+|LD_LIBRARY_PATH|LD_PRELOAD|LD_AUDIT|DYLD_\w+|LIBRARY_PATH"
    r"|PYTORCH_\w*ALLOC_CONF|TORCH_\w+|TORCHINDUCTOR_\w+|TORCHDYNAMO_\w+|TRITON_\w+|ATEN_CPU_CAPABILITY"
    r"|CUDA_FORCE_PTX_JIT|CUDA_DISABLE_PTX_JIT|CUDA_MODULE_LOADING|CUBLAS\w*|NVIDIA_TF32_OVERRIDE"
    r"|HSA_\w+|ROCM_\w+|HIP_PATH|CUDA_HOME|CUDA_PATH|MKL_\w+|KMP_\w+|ONEDNN_\w+|DNNL_\w+"
)


def suspects(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the variables that are set and could be to blame, in order."""
    return tuple(sorted(name for name in environ if _SUSPECT.fullmatch(name)))


def without(environ: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """The environment without these variables."""
    return {name: value for name, value in environ.items() if name not in names}
