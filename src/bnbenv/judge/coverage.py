"""How a build or a library serves one GPU, and which GPUs a process sees."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from bnbenv.dataclass import dataclass, replace
from bnbenv.judge import lookup
from bnbenv.judge.loader import backend_of, choose_cpu_library, choose_library
from bnbenv.machine.target import ON_PROCESSORS
from bnbenv.machine.visible import cuda_visible, hip_visible, named_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.judge.loader import LoaderChoice
    from bnbenv.judge.stack import Stack
    from bnbenv.machine.target import Gpu, Target
    from bnbenv.matrix.matrix import Matrix
    from bnbenv.matrix.rows import BitsandbytesWheel, LoaderRule, NativeLibrary, TorchBuild
    from bnbenv.units import ComputeCapability, CudaVersion

State = Literal["cubin", "ptx", "relocatable-ptx", "named", "none", "unknown"]


@dataclass(frozen=True, slots=True)
class Cover:
    """What serves a GPU.

    Attributes:
        state: ``named`` for a target named by its vendor (gfx), ``ptx`` for PTX that the driver may
            compile, ``unknown`` where a fact is missing.
        text: such as ``cubin 8.6``, or ``None`` where nothing serves it.
    """

    state: State
    text: str | None


_NO_ENV: Mapping[str, str] = MappingProxyType({})
NOTHING = Cover("none", None)
UNKNOWN = Cover("unknown", None)


@lru_cache(maxsize=16384)
def best_cubin(
    cubins: tuple[ComputeCapability, ...], capability: ComputeCapability
) -> ComputeCapability | None:
    """The cubin that runs on a GPU: of the same major version, the highest minor that is not above.

    Cubins of integrated Tegra chips and of desktop chips do not run on each other, whatever their numbers:
    CUDA C++ Programming Guide, binary compatibility.
    """
    tegra = capability.tegra
    fitting = [
        cubin
        for cubin in cubins
        if cubin.major == capability.major
        and cubin.minor <= capability.minor
        and (cubin == capability or (not tegra and not cubin.tegra))
    ]
    return max(fitting, default=None)


def by_torch(
    gpu: Gpu, build: TorchBuild, target: Target, matrix: Matrix, env: Mapping[str, str] = _NO_ENV
) -> Cover:
    """How a torch build serves a GPU."""
    match backend_of(build):
        case "cuda":
            return _cuda_by_torch(gpu, build, target, matrix)
        case "rocm":
            return _rocm_by_torch(gpu, build, matrix, env)
        case backend:
            return Cover("named", backend)


def _cuda_by_torch(gpu: Gpu, build: TorchBuild, target: Target, matrix: Matrix) -> Cover:
    capability = gpu.compute_capability
    if capability is None:
        return UNKNOWN
    if not build.cubins:
        # Of a build that nobody measured it is known at least what its toolkit can and cannot make.
        made = build.cuda is None or lookup.toolkit_serves(matrix, build.cuda, capability)
        return UNKNOWN if made else NOTHING
    if cubin := best_cubin(build.cubins, capability):
        return Cover("cubin", f"cubin {cubin}")
    usable = [ptx for ptx in build.ptx if ptx <= capability]
    if usable and build.cuda is not None and _driver_compiles(build.cuda, target, matrix):
        return Cover("ptx", f"PTX {max(usable)}")
    if on_tegra(target) and any(cubin.major == capability.major for cubin in build.cubins):
        return UNKNOWN
    return NOTHING


def _rocm_by_torch(gpu: Gpu, build: TorchBuild, matrix: Matrix, env: Mapping[str, str]) -> Cover:
    gfx = effective_gfx(gpu, env)
    if gfx is None or not build.gfx:
        return UNKNOWN if gfx is None else Cover("unknown", f"ROCm {build.rocm}")
    if gfx in build.gfx:
        return Cover("named", gfx)
    # The scripts' lists grew over the releases: a target of another list may be in this build as well.
    return Cover("unknown", f"ROCm {build.rocm}") if gfx in lookup.torch_targets(matrix) else NOTHING


def _driver_compiles(made_by: CudaVersion, target: Target, matrix: Matrix) -> bool:
    """Whether the driver accepts PTX of that toolkit: its own CUDA version must not be older."""
    if target.driver is None:
        return True  # nothing is known of the driver; the rule on drivers says so
    own = lookup.driver_cuda(matrix, target.driver.branch)
    return own is not None and own >= made_by


def by_library(gpu: Gpu, library: NativeLibrary, target: Target, env: Mapping[str, str]) -> Cover:
    """How a library of bitsandbytes serves a GPU."""
    match library.backend:
        case "cuda":
            return _cuda_by_library(gpu, library, target)
        case "rocm":
            return _rocm_by_library(gpu, library, env)
        case backend:
            return Cover("named", backend)


def _cuda_by_library(gpu: Gpu, library: NativeLibrary, target: Target) -> Cover:
    capability = gpu.compute_capability
    if capability is None:
        return UNKNOWN
    if cubin := best_cubin(library.cubins, capability):
        return Cover("cubin", f"cubin {cubin}")
    usable = [ptx for ptx in library.ptx if ptx <= capability]
    if usable and library.ptx_linkage == "executable":
        return Cover("ptx", f"PTX {max(usable)}")
    if usable:
        return Cover("relocatable-ptx", f"relocatable PTX {max(usable)}")
    if on_tegra(target) and any(cubin.major == capability.major for cubin in library.cubins):
        return UNKNOWN
    return NOTHING


def _rocm_by_library(gpu: Gpu, library: NativeLibrary, env: Mapping[str, str]) -> Cover:
    gfx = effective_gfx(gpu, env)
    if gfx is None or not library.gfx:
        return UNKNOWN
    held = {name.split(":")[0] for name in library.gfx}
    return Cover("named", gfx) if gfx in held else NOTHING


def effective_gfx(gpu: Gpu, env: Mapping[str, str]) -> str | None:
    """The target that the ROCm runtime takes a GPU for; ``HSA_OVERRIDE_GFX_VERSION`` changes it."""
    override = env.get("HSA_OVERRIDE_GFX_VERSION", "")
    parts = override.split(".")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        major, minor, stepping = (int(part) for part in parts)
        return f"gfx{major}{minor:x}{stepping:x}"
    return gpu.gfx.split(":")[0] if gpu.gfx else None


def on_tegra(target: Target) -> bool:
    """Whether the machine is a Jetson board, told by itself or by its L4T."""
    return target.tegra or target.l4t is not None


def l4t_major(target: Target) -> int | None:
    """The major release of the board's L4T, as in ``36.4.3`` or ``R36.4.3``; ``None`` where unknown."""
    head = (target.l4t or "").strip().removeprefix("R").split(".")[0]
    return int(head) if head.isdigit() else None


def seen_gpus(stack: Stack, target: Target) -> tuple[Gpu, ...]:
    """The GPUs that the stack's process sees; all of them where nothing tells which a variable means.

    A variable of the stack counts among all GPUs, as it stands in place of the one under which the machine
    was looked at; without one, the GPUs are those that were visible then.
    """
    if not any(variable in stack.env for variable in visibility(target)):
        return target.visible_gpus
    seen = _visible(stack, target)
    return tuple(gpu for gpu, one in zip(target.gpus, seen, strict=True) if one is not False)


def selections(stack: Stack, target: Target) -> tuple[tuple[Gpu, ...], ...]:
    """The sets of GPUs, of those that the rules can tell apart, that the stack's process may see.

    More than one where a number counts in CUDA's own order, or a UUID is none of those that are known.
    """
    if not any(variable in stack.env for variable in visibility(target)):
        return (target.visible_gpus,)
    if None not in _visible(stack, target):
        return (seen_gpus(stack, target),)
    numbered = [
        gpu if gpu.index is not None else replace(gpu, index=position)
        for position, gpu in enumerate(target.gpus)
    ]
    text = next(stack.env[variable] for variable in visibility(target) if variable in stack.env)
    count = named_count(text, len(numbered))
    kinds = {tuple(sorted(map(_kind, chosen), key=str)): chosen for chosen in combinations(numbered, count)}
    return tuple(kinds.values())


def _visible(stack: Stack, target: Target) -> tuple[bool | None, ...]:
    uuids = [(gpu.uuid,) if gpu.uuid else () for gpu in target.gpus]
    if target.accelerator == "rocm":
        return hip_visible(uuids, stack.env)
    return cuda_visible([f"{gpu.name} {_kind(gpu)}" for gpu in target.gpus], uuids, stack.env)


def _kind(gpu: Gpu) -> tuple[object, ...]:
    """What the rules can tell apart."""
    return gpu.compute_capability, gpu.gfx, gpu.integrated


def integrated(gpu: Gpu) -> bool:
    """Whether a GPU stands on the processor's die; detect tells, and a target file may leave it out."""
    return gpu.integrated if gpu.integrated is not None else gpu.gfx in ON_PROCESSORS


def beside_discrete(gpu: Gpu, gpus: tuple[Gpu, ...]) -> bool:
    """Whether a GPU is the processor's own and a card stands beside it, which is what is meant to be used."""
    return integrated(gpu) and any(not integrated(other) for other in gpus)


_VISIBILITY = {
    "cuda": ("CUDA_VISIBLE_DEVICES",),
    "rocm": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
}


def visibility(target: Target) -> tuple[str, ...]:
    """The variables that choose among the machine's GPUs."""
    return _VISIBILITY.get(target.accelerator, ())


def capabilities(gpus: tuple[Gpu, ...]) -> tuple[ComputeCapability, ...]:
    """The distinct compute capabilities that are known, ascending."""
    return tuple(sorted({gpu.compute_capability for gpu in gpus if gpu.compute_capability is not None}))


def chosen_library(stack: Stack, target: Target, matrix: Matrix) -> LoaderChoice | None:
    """What the loader of the stack's bitsandbytes takes on the target; ``None`` where nothing is known.

    On a machine without an accelerator torch sees none, and every release takes its CPU library.
    """
    if target.accelerator in ("cpu", "mps") and backend_of(stack.torch) in ("cuda", "rocm", "xpu"):
        known = _loader(stack, target, matrix)
        return choose_cpu_library(*known) if known else None
    return library_of_build(stack, target, matrix)


def library_of_build(stack: Stack, target: Target, matrix: Matrix) -> LoaderChoice | None:
    """The same where torch sees what it is built for, whether or not the target has such a GPU."""
    known = _loader(stack, target, matrix)
    if known is None:
        return None
    return choose_library(*known, stack.torch, capabilities(seen_gpus(stack, target)), stack.env)


def _loader(stack: Stack, target: Target, matrix: Matrix) -> tuple[BitsandbytesWheel, LoaderRule] | None:
    wheel = stack.bitsandbytes
    if wheel is None or (wheel.os, wheel.arch) != (target.os, target.arch) or stack.torch.build == "unknown":
        return None
    rule = lookup.loader_rule(matrix, wheel.version)
    return (wheel, rule) if rule is not None and wheel.libraries else None


def gpu_label(gpu: Gpu, position: int) -> str:
    """A GPU in a message: ``GPU 1 (6.1)``."""
    return _kind_label([(position, gpu)])


def kinds_of_gpu(target: Target) -> list[tuple[str, tuple[Gpu, ...]]]:
    """The visible GPUs by what the rules can tell apart, such as ``GPU 0, 1 (8.9)``.

    The order depends on the kinds alone, not on how the machine numbers its GPUs.
    """
    kinds: dict[object, list[tuple[int, Gpu]]] = {}
    for position, gpu in enumerate(target.visible_gpus):
        kinds.setdefault(_kind(gpu), []).append((position, gpu))
    return [
        (_kind_label(kinds[kind]), tuple(gpu for _, gpu in kinds[kind])) for kind in sorted(kinds, key=str)
    ]


def _kind_label(members: list[tuple[int, Gpu]]) -> str:
    numbers = ", ".join(gpu_number(gpu, position) for position, gpu in members)
    gpu = members[0][1]
    return f"GPU {numbers} ({gpu.compute_capability or gpu.gfx or gpu.name})"


def select(target: Target, gpus: tuple[Gpu, ...]) -> str:
    """The variables that show a process these GPUs of several kinds alone, by their numbers.

    CUDA counts the fastest first unless it is told to count as the driver and nvidia-smi do.
    """
    positions = [place for place, gpu in enumerate(target.visible_gpus) if any(gpu is one for one in gpus)]
    numbers = ",".join(gpu_number(target.visible_gpus[place], place) for place in positions)
    if target.accelerator == "rocm":
        return f"HIP_VISIBLE_DEVICES={numbers}"
    return f"CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={numbers}"


def gpu_number(gpu: Gpu, position: int) -> str:
    """The number by which the vendor's tools and variables call a GPU."""
    return str(gpu.index if gpu.index is not None else position)
