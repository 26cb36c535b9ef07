"""A target described on the command line: `--gpu`, `--driver`, `--os` and their like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bnbenv.errors import UsageError
from bnbenv.machine.target import Gpu, Libc, Target
from bnbenv.units import ComputeCapability, DottedVersion, DriverVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bnbenv.machine.target import Accelerator, Arch, OsName

_CAPABILITY = re.compile(r"(?:sm_?)?\d{1,2}\.\d|sm_?\d{2,3}")
_GFX = re.compile(r"(gfx[0-9a-f]{3,5})(?::\w+[+-])*")  # with or without features: `gfx90a:xnack-`
_INTEL = "8086:"
# Intel's by name or by number alone: `A770`, `B580`, `Max 1100`. NVIDIA's have other digits: `A100`, `A500`.
_OF_INTEL = re.compile(
    r"\barc\b|\bponte vecchio\b|\bmax 1[1345][05]0\b|^(?:a[357][1-8]|b5[78])0m?$", re.IGNORECASE
)
# Chips that are sold beside an Arm processor alone, of kinds that others have too: Grace's and Graviton's.
_ON_ARM = re.compile(r"\b(?:G[BH]\d00|T4G)\b", re.IGNORECASE)
_BEFORE = re.compile(r"(?P<number>[1-9]\d?) ?[x\u00d7] ?(?P<name>(?!\d{1,2}$).+)", re.IGNORECASE)
_AFTER = re.compile(r"(?P<name>.+?) [x\u00d7] ?(?P<number>[1-9]\d?)", re.IGNORECASE)
_DRIVER = re.compile(r"(?:nvidia-driver-|[rv])?(?P<number>\d+(?:\.\d+)*)(?:\.x{1,2})?(?:-(?:open|server))*")
# Windows shows NVIDIA's 536.23 as 31.0.15.3623: its five digits end the number.
_OF_WINDOWS = re.compile(r"\d{2}\.\d{1,2}\.\d{1,2}(?P<first>\d)\.(?P<middle>\d{2})(?P<last>\d{2})")
_FIRST_BRANCH = 100  # a smaller number is a version of CUDA


def describe(
    *,
    name: str,
    gpus: Sequence[str],
    driver: str | None,
    os: OsName,
    arch: Arch,
    glibc: str | None,
    pythons: Sequence[str],
    wsl: bool,
    find_gpu: Callable[[str], Gpu],
) -> Target:
    """Build the target that the options name.

    Args:
        name: how to call the machine.
        gpus: product names, compute capabilities (``8.9``, ``sm_89``), gfx targets, ``xpu``; one a GPU, or
            with a number (``2x RTX 3090``). Without any, the target is a machine without a GPU (or a Mac with
            an Apple chip).
        driver: of the GPUs, as its vendor or Windows writes it; a bare branch is enough. ``None`` is unknown.
        os: the operating system.
        arch: the processor.
        glibc: of a Linux machine; ``None`` is unknown.
        pythons: minor versions; none is unknown.
        wsl: whether it is Linux in WSL2, so that `driver` is the Windows driver.
        find_gpu: finds a product by its name, and raises a UsageError itself where it cannot.

    Raises:
        UsageError: code ``bad-target``; the options contradict each other or cannot be read.
    """
    found = [_gpu(text, find_gpu) for given in gpus for text in _counted(given.strip())]
    accelerators = {accelerator for _, accelerator in found}
    if len(accelerators) > 1:
        raise _bad(
            f"`--gpu` names GPUs of different vendors: {', '.join(gpus)}",
            "one environment serves one of them",
        )
    accelerator: Accelerator = accelerators.pop() if accelerators else "cpu"
    if accelerator == "cpu" and os == "macos" and arch == "aarch64":
        accelerator = "mps"
    if driver is not None and accelerator not in {"cuda", "rocm", "xpu"}:
        raise _bad("`--driver` is given without a GPU", "name the GPU with `--gpu`")
    if glibc is not None and os != "linux":
        raise _bad(f"`--glibc` has no meaning for {os}", "leave it out")
    if wsl and os != "linux":
        raise _bad("WSL2 is described as Linux", "say `--os wsl`")
    if os == "macos" and accelerator in {"cuda", "rocm", "xpu"}:
        raise _bad("no release of bitsandbytes uses such a GPU on macOS", "leave `--gpu` or `--os` out")
    return Target(
        name=name,
        os=os,
        arch=arch,
        accelerator=accelerator,
        libc=None if glibc is None else Libc(family="glibc", version=_version(glibc)),
        wsl=wsl,
        tegra=any(gpu.compute_capability is not None and gpu.compute_capability.tegra for gpu, _ in found),
        driver=None if driver is None else _driver(driver, accelerator),
        gpus=tuple(_numbered(gpu, number) for number, (gpu, _) in enumerate(found)),
        pythons=_minors(pythons),
    )


def on_arm(gpu: Gpu) -> bool:
    """Whether a GPU stands beside Arm processors alone: Jetson boards, GB10, GH200, T4G."""
    capability = gpu.compute_capability
    return bool(capability and (capability.on_arm or _ON_ARM.search(gpu.name)))


def _counted(text: str) -> tuple[str, ...]:
    """``RTX 3090`` twice for ``2x RTX 3090`` and for ``RTX 3090 x2``."""
    match = _BEFORE.fullmatch(text) or _AFTER.fullmatch(text)
    return (match["name"],) * int(match["number"]) if match else (text,)


def _gpu(text: str, find_gpu: Callable[[str], Gpu]) -> tuple[Gpu, Accelerator]:
    if _CAPABILITY.fullmatch(text.lower()):
        digits = text.lower().removeprefix("sm").removeprefix("_")
        capability = ComputeCapability.parse(digits)
        return Gpu(name=f"GPU of compute capability {capability}", compute_capability=capability), "cuda"
    if match := _GFX.fullmatch(text.lower()):
        return Gpu(name=f"AMD GPU {match[1]}", gfx=match[1]), "rocm"
    if text.lower() in {"none", "no", "cpu"}:
        raise _bad(f"{text!r} is no GPU", "leave `--gpu` out; `--os linux` alone is a machine without one")
    if re.fullmatch(r"(?:apple )?m[1-9](?: (?:pro|max|ultra))?", text.lower()):
        raise _bad(
            f"{text!r} is a processor of Apple's", "write `--os macos --arch aarch64`, without `--gpu`"
        )
    if text.lower() == "xpu" or _OF_INTEL.search(text):
        return Gpu(name="Intel GPU"), "xpu"
    gpu = find_gpu(text)
    if gpu.gfx is not None:
        return gpu, "rocm"
    if (gpu.pci_id or "").startswith(_INTEL):
        return gpu, "xpu"
    return gpu, "cuda"


def _numbered(gpu: Gpu, number: int) -> Gpu:
    from bnbenv.dataclass import replace

    return replace(gpu, index=number)


def _bad(message: str, hint: str | None = None) -> UsageError:
    return UsageError(message, code="bad-target", hint=hint)


def _driver(text: str, accelerator: Accelerator) -> DriverVersion:
    match = _DRIVER.fullmatch(text.strip().lower())
    if match is None:
        raise _bad(f"`--driver` is not a driver version: {text!r}", "write it like `550` or `550.54.15`")
    if accelerator != "cuda":
        return DriverVersion.parse(match["number"])
    if shown := _OF_WINDOWS.fullmatch(match["number"]):
        return DriverVersion.parse(f"{shown['first']}{shown['middle']}.{shown['last']}")
    driver = DriverVersion.parse(match["number"])
    if driver.branch < _FIRST_BRANCH:
        raise _bad(
            f"`--driver {text}` is no driver of NVIDIA's, but perhaps a version of CUDA",
            "write what nvidia-smi calls `Driver Version`, like `550` or `550.54.15`",
        )
    return driver


def _version(text: str) -> DottedVersion:
    try:
        return DottedVersion.parse(text)
    except ValueError:
        raise _bad(f"`--glibc` is not a version: {text!r}", "write it like `2.35`") from None


def _minors(texts: Sequence[str]) -> tuple[str, ...]:
    minors = set()
    for text in texts:
        match = re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.\d{1,3})?", text.strip())
        if match is None:
            raise _bad(f"`--python` is not a Python version: {text!r}", "write it like `3.12`")
        minors.add((int(match[1]), int(match[2])))
    return tuple(f"{major}.{minor}" for major, minor in sorted(minors))
