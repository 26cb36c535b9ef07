"""Which packages belong to a build of torch. All names are normalised."""

from __future__ import annotations

# Replacing one of them replaces torch.
TORCH_FAMILY = frozenset(
    {
        "torch",
        "torchvision",
        "torchaudio",
        "triton",
        "triton-rocm",
        "triton-xpu",
        "pytorch-triton",
        "pytorch-triton-rocm",
        "pytorch-triton-xpu",
    }
)
# What builds for CUDA, ROCm and XPU bring along, at the very version that they were built with.
_PREFIXES = ("nvidia-", "cuda-", "rocm-", "intel-", "dpcpp-", "onemkl-")
# What has such a name and is no part of any build: users add it, and may have any version of it.
_ADDED = ("intel-extension-", "nvidia-ml-py", "nvidia-modelopt", "nvidia-dali", "nvidia-pyindex")

# Built against one build of torch, where they are wanted: from another index they load another CUDA, or none.
BUILT_AGAINST_TORCH = ("torchvision", "torchaudio", "torchtext", "torchcodec", "torchao", "triton")


def is_torch_family(name: str) -> bool:
    """Whether a package is a part of torch's build, or can be replaced only with it."""
    return name in TORCH_FAMILY or (name.startswith(_PREFIXES) and not name.startswith(_ADDED))


def differs_by_build(name: str) -> bool:
    """Whether it is a package's nature that its version differs between builds of torch."""
    return is_torch_family(name) or name in BUILT_AGAINST_TORCH or name == "bitsandbytes"
