from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import pytest

from bnbenv.doctor.derived import NAMES
from bnbenv.doctor.diagnosis import read_text
from bnbenv.doctor.facts import target_of
from bnbenv.workflows.diagnose import load_rules

if TYPE_CHECKING:
    from bnbenv.doctor.facts import Facts
    from bnbenv.matrix.matrix import Matrix


BARE = "libbitsandbytes_cuda121.so"
RANGE = "Minimum and Maximum cuda capability supported by this version of PyTorch is"
HELD = "/e/site-packages/bitsandbytes/libbitsandbytes_cuda126.so"


@lru_cache(maxsize=1)
def rules() -> Matrix:
    return load_rules()


def facts(text: str) -> Facts:
    return read_text([text.encode()], rules())[1]


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("PyTorch version: 2.5.1+cu121", "torch", "2.5.1+cu121"),
        (">>> torch.__version__\n'2.4.0+cpu'", "torch", "2.4.0+cpu"),
        ("torch.cuda.is_available() returns True", "cuda_available", "True"),
        ("torch.cuda.is_available() is `False` here", "cuda_available", "False"),
        ("torch                     2.9.1+cu128", "torch", "2.9.1+cu128"),
        ("pytorch   2.1.0  py3.10_cuda12.1_cudnn8.9.2_0  pytorch", "torch_cuda", "12.1"),
        (
            "Requirement already satisfied: torch>=2.0 in /e (from bitsandbytes) (2.4.0+cu124)",
            "torch",
            "2.4.0+cu124",
        ),
        ("pip install torch==2.1.0\nPyTorch version: 2.5.1+cu121", "torch", "2.5.1+cu121"),
        (
            "Requirement already satisfied: bitsandbytes>=0.40 in /e/site-packages (0.45.3)",
            "bitsandbytes",
            "0.45.3",
        ),
        ("| NVIDIA-SMI 535.54.03  Driver Version: 535.54.03  CUDA Version: 12.2 |", "driver", "535.54.03"),
        ("| NVIDIA-SMI 535.54.03  Driver Version: 535.54.03  CUDA Version: 12.2 |", "driver_cuda", "12.2"),
        ("| NVIDIA-SMI 535.54.03  Driver Version: 535.54.03  CUDA Version: 12.2 |", "torch_cuda", None),
        ("| NVIDIA-SMI 535.54.03  Driver Version: 535.54.03  CUDA Version: 12.2 |", "toolkit", None),
        ("I use driver 550.54.15.", "driver", "550.54.15"),
        ("Windows 11, driver 595.79, RTX 5080", "driver", "595.79"),
        ("Intel Arc with driver 101.5972", "driver", None),
        ("Driver: 101.5972", "driver", None),
        ("chrome driver 114.0.5735.90", "driver", None),
        ("The printer driver 123.4 broke.", "driver", None),
        ("Cuda compilation tools, release 11.8, V11.8.89", "toolkit", "11.8"),
        ("Cuda compilation tools, release 11.8, V11.8.89", "torch_cuda", None),
        ("No matching distribution found for bitsandbytes==0.43.0", "bitsandbytes", None),
        ("Platform: Linux-5.4.0-153-generic-x86_64-with-glibc2.27", "glibc", "2.27"),
    ],
)
def test_stated(text: str, name: str, value: str | None) -> None:
    assert facts(text).best(name) == value


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("C:\\Users\\a\\x.py", {"os:windows"}),
        ("/Users/ana/x", {"os:macos"}),
        ("/mnt/c/Users/a", {"wsl", "os:linux"}),
        ("Linux 5.15.148-tegra aarch64", {"tegra", "arch:aarch64"}),
        ("Highest compute capability among GPUs detected: 8.7", {"tegra", "arch:aarch64"}),
        ("Highest compute capability among GPUs detected: 10.1", {"tegra", "arch:aarch64"}),
        ("torch 2.4.0+rocm6.1", {"torch:rocm"}),
        ("GPU 0: RTX 4090\nGPU 1: GTX 1080", {"gpus:differ", "gpu:nvidia"}),
        ("torch 2.6.0+cu124\nRTX 5090", {"gpu:outside-torch-cuda"}),
        ("torch 2.12.0+cu130\nDriver Version: 550.54.15", {"driver:below-torch-cuda"}),
        ("torch 2.12.0+cu126\nDriver Version: 550.54.15", {"driver:serves-torch-cuda"}),
        ("Configured CUDA binary not found at /e/site-packages/bitsandbytes/libbitsandbytes_cuda129.so",
         {"missing:cuda", "missing:installed"}),
        ("Configured CUDA binary not found at /src/bitsandbytes/bitsandbytes/libbitsandbytes_cuda129.so",
         {"missing:cuda", "missing:checkout"}),
        (f"bitsandbytes 0.46.1\nConfigured CUDA binary not found at {HELD}", {"missing:in-wheel"}),
        ("No matching distribution found for bitsandbites", {"name:misspelt"}),
        ("libbitsandbytes_cuda118.so does not exist", {"missing:cuda", "missing:native"}),
        (f"bin /src/bitsandbytes/{BARE}\nRequired library version not found: {BARE}", {"missing:checkout"}),
        ("export BNB_CUDA_VERSION=123\nRequired library version not found: libbitsandbytes_cuda123.so",
         {"missing:as-overridden"}),
        ("bin /e/site-packages/bitsandbytes/libbitsandbytes_cuda102.so", {"chosen:ancient"}),
        ("bitsandbytes 0.39.0\nbin /e/bitsandbytes/libbitsandbytes_cuda122.so", {"chosen:not-in-wheel"}),
        ("torch==2.5.1\nRTX 5090", {"gpu:outside-torch-release"}),
        ("RTX 6000, some torch", {"gpu:nvidia"}),
        (f"GTX 1080\n{RANGE} (7.0) - (12.0)", {"gpu:outside-torch-range"}),
        ("torch 2.9.1+rocm6.4\ngfx1103", {"gfx:outside-torch-build"}),
        ("pytorch   2.5.1  cpu_mkl_py312_h3c02c1c_110  conda-forge", {"torch:cpu"}),
        ("py -3.16 -m pip install torch", {"python:without-torch"}),
        ("This is a CPU-only server.", {"gpu:absent"}),
        ("AMD Radeon RX 5600 XT", {"rocm:named"}),
        ("AMD Radeon RX 7900 XTX", {"gfx:served", "gpu:amd"}),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_derived(text: str, names: set[str]) -> None:
    assert names <= set(facts(text).derived)


@pytest.mark.parametrize(
    "text", ["torch==2.7.1\nRTX 5090", "torch==2.5.1\nRTX 4090", "torch==1.7.0\nRTX 5090"]
)
def test_a_release_of_torch_with_a_build_for_the_gpu(text: str) -> None:
    assert "gpu:outside-torch-release" not in facts(text).derived


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"NVIDIA GB10\n{RANGE} (8.0) - (12.0)", "gpu:outside-torch-range"),
        ("torch 2.9.1+rocm6.4\ngfx1100", "gfx:outside-torch-build"),
        ("pytorch   2.5.1  cuda126_mkl_py312_h3c02c1c_110  conda-forge", "torch:cpu"),
        ("py -3.12 -m pip install torch", "python:without-torch"),
        ("compiled without GPU support", "gpu:absent"),
        ("This is a CPU-only server, and the other has an RTX 4090.", "gpu:absent"),
    ],
)  # fmt: skip
def test_not_derived(text: str, name: str) -> None:
    assert name not in facts(text).derived


def test_only_declared_names_are_derived() -> None:
    text = (
        "torch 2.6.0+cu124\nRTX 5090 GTX 1080\nDriver Version: 450.1\n/mnt/c/x aarch64 JetPack gfx1100\n"
        "Configured ROCm binary not found at C:/x/libbitsandbytes_rocm63.so\n"
        "Could not find the bitsandbytes CUDA binary at libbitsandbytes_cuda102.so\n"
        "No matching distribution found for bitsandbytes==0.43.0\n"
    )
    assert set(facts(text).derived) <= NAMES


def test_the_machine_that_a_text_describes() -> None:
    target = target_of(facts("RTX 4090\nDriver Version: 550.54.15\nUbuntu, glibc-2.35\n"))
    assert (target.os, target.accelerator, str(target.driver)) == ("linux", "cuda", "550.54.15")
    assert [str(gpu.compute_capability) for gpu in target.gpus] == ["8.9"]
