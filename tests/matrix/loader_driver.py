"""Runs a release's own loader over a list of cases, with stub modules in place of torch and ctypes' loading.

Reads one JSON object from stdin: `package` (the directory with the release's sources and empty files named
like its libraries), `system` (what `platform.system()` says) and `cases`; writes one outcome a case. It runs
in a process of its own, since the sources are of another project and change global state.
"""

# ruff: noqa: BLE001, ANN201, ANN204
# mypy: ignore-errors
from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import json
import logging
import os
import platform
import sys
import types
import warnings
from pathlib import Path


class Library:
    """Stands for a loaded native library: it answers as the kind of file that was asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        native = Path(path).name
        if "_cuda" in native or "_rocm" in native:
            self.get_context = self.get_cusparse = self.cget_managed_ptr = types.SimpleNamespace()
            self.cadam32bit_g32 = self.cadam32bit_grad_fp32 = types.SimpleNamespace()


def stub_torch(case: dict) -> types.ModuleType:
    torch = types.ModuleType("torch")
    torch.version = types.SimpleNamespace(cuda=case["cuda"], hip=case["hip"], xpu=None)
    found = [tuple(capability) for capability in case["capabilities"]]
    torch.cuda = types.SimpleNamespace(
        is_available=lambda: bool(found),
        device_count=lambda: len(found),
        device=lambda index: index,
        get_device_capability=lambda index=0: found[index],
    )
    torch._C = types.SimpleNamespace(_has_xpu=False)
    torch.backends = types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False))
    torch.xpu = types.SimpleNamespace(is_available=lambda: False)
    return torch


def fake_cdll(case: dict, opened: list[str]):
    """What the oldest releases open by themselves: the driver and a CUDA runtime, which tell versions."""
    major, minor = map(int, (case["cuda"] or "0.0").split("."))

    class Cuda:
        def __init__(self, name: str | None = None, *_: object, **__: object) -> None:
            self.name = str(name)
            opened.append(self.name)
            if self.name.startswith("libcuda.so") and not case["capabilities"]:
                raise OSError(f"{name}: cannot open shared object file: No such file or directory")

        def __getattr__(self, name: str):
            def call(*arguments: object) -> int:
                values = [getattr(argument, "_obj", None) for argument in arguments]
                if name == "cudaRuntimeGetVersion":
                    values[0].value = major * 1000 + minor * 10
                elif name == "cuDeviceGetCount":
                    values[0].value = len(case["capabilities"])
                elif name == "cuDeviceGet":
                    values[0].value = arguments[1]
                elif name == "cuDeviceComputeCapability":
                    device = getattr(arguments[2], "value", arguments[2])
                    values[0].value, values[1].value = case["capabilities"][device]
                return 0

            return call

    return Cuda


def run(package: Path, system: str, case: dict) -> dict:
    for name in [name for name in sys.modules if name.split(".")[0] in ("bitsandbytes", "torch")]:
        del sys.modules[name]
    for name in ("BNB_CUDA_VERSION", "BNB_ROCM_VERSION", "CUDA_VERSION", "CONDA_PREFIX"):
        os.environ.pop(name, None)
    os.environ.update(case["environ"])
    for name in ("LD_LIBRARY_PATH", "CUDA_HOME"):  # where there is no GPU, there is no CUDA runtime either
        os.environ.pop(name, None)
        if case["capabilities"]:
            os.environ[name] = str(package.parent / "runtime")
    loaded: list[str] = []

    def load_library(path: object) -> Library:
        if not Path(str(path)).exists():
            raise OSError(f"{path}: cannot open shared object file: No such file or directory")
        loaded.append(Path(str(path)).name)
        return Library(str(path))

    sys.modules["torch"] = stub_torch(case)
    shell = types.ModuleType("bitsandbytes")
    shell.__path__ = [str(package)]
    sys.modules["bitsandbytes"] = shell
    opened: list[str] = []
    kept = (ctypes.cdll.LoadLibrary, ctypes.CDLL, platform.system)
    ctypes.cdll.LoadLibrary, ctypes.CDLL = load_library, fake_cdll(case, opened)
    platform.system = lambda: system
    try:
        module = importlib.import_module("bitsandbytes.cextension")
    except Exception as error:  # whatever a release raises at import is its answer
        return {"library": None, "consequence": "raise", "words": f"{type(error).__name__}: {error}"[:200]}
    finally:
        ctypes.cdll.LoadLibrary, ctypes.CDLL, platform.system = kept
    library = getattr(module, "lib", None)
    if "Mock" in type(library).__name__:
        return {"library": None, "consequence": "mock", "words": ""}
    if library is None:
        return {"library": None, "consequence": "raise", "words": "lib is None"}
    name = loaded[-1] if loaded else None
    if name and "_cpu" in name and case["capabilities"]:
        return {"library": None, "consequence": "cpu", "words": ""}
    return {"library": name, "consequence": "fine", "words": ""}


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    job = json.load(sys.stdin)
    runtime = Path(job["package"]).parent / "runtime"
    runtime.mkdir(exist_ok=True)
    (runtime / "libcudart.so").touch()  # the oldest releases look for one on search paths
    with contextlib.redirect_stdout(io.StringIO()):
        outcomes = [run(Path(job["package"]), job["system"], case) for case in job["cases"]]
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
