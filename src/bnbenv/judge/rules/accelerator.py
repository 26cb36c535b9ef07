"""Rules on torch and the accelerator: the right kind of build, and a kernel for each visible GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnbenv.dataclass import replace
from bnbenv.judge import coverage
from bnbenv.judge.loader import backend_of
from bnbenv.judge.ranges import within
from bnbenv.judge.rules.rule import finding, rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bnbenv.judge.stack import Finding, Stack
    from bnbenv.machine.target import Target
    from bnbenv.matrix.matrix import Matrix

_SELECT = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES"}


@rule("torch", source="torch's build variants")
def build_is_for_accelerator(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Torch is built for the accelerator that the machine has."""
    del matrix
    build, made_for = stack.torch, backend_of(stack.torch)
    if made_for == target.accelerator or build.build == "unknown":
        return
    if target.accelerator == "cpu":
        yield finding(
            "no-gpu-visible",
            "info",
            "torch",
            f"torch {build.version} ({build.build}) is a {made_for.upper()} build on a machine without GPU",
            "it computes on the processor, and is larger than a CPU build",
        )
        return
    if target.accelerator == "mps" and made_for == "cpu" and target.os == "macos":
        return  # macOS has one build, which serves both
    windows_trap = target.os == "windows" and made_for == "cpu" and build.index == "pypi"
    yield finding(
        "windows-cpu-torch" if windows_trap else "torch-cpu-build",
        "error",
        "torch",
        f"torch {build.version} ({build.build}) is a {made_for.upper()} build, "
        f"and the machine's accelerator is {target.accelerator.upper()}",
        *(("PyPI's torch for Windows is a CPU build in every release",) if windows_trap else ()),
        need=f"an index with {target.accelerator.upper()} builds of torch",
        remedy="Take torch from the index that carries builds for the accelerator.",
    )


@rule("torch", source="cubins measured in libtorch_cuda; CUDA C++ Programming Guide, binary compatibility")
def torch_serves_gpus(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Torch holds a kernel for each visible GPU."""
    build = stack.torch
    if target.accelerator not in ("cuda", "rocm") or backend_of(build) != target.accelerator:
        return
    gpus = coverage.seen_gpus(stack, target)
    for position, gpu in enumerate(gpus):
        label = coverage.gpu_label(gpu, position)
        cover = coverage.by_torch(gpu, build, target, matrix, stack.env)
        if cover.state == "none":
            held = (
                ", ".join(map(str, build.cubins or build.gfx))
                or "no GPU of its generation, as its CUDA tells"
            )
            yield finding(
                "torch-arch-unsupported",
                "warning" if coverage.beside_discrete(gpu, gpus) else "error",
                label,
                f"torch {build.version} ({build.build}) holds no kernel for {label}",
                f"it holds {'cubins' if build.cubins else 'code'} for {held}"
                + (f" and PTX {build.ptx[-1]}" if build.ptx else ""),
                need=f"drop {label}" if len(gpus) > 1 else "a torch build that serves the GPU",
                source=build.provenance.source,
            )
        elif cover.state == "ptx":
            yield finding(
                "low-confidence",
                "warning",
                label,
                f"only PTX of torch {build.version} ({build.build}) serves {label}",
                "the driver compiles it at the first start",
                undecided=build.provenance.how == "published",
                need="a build that was measured",
                source=build.provenance.source,
            )
        elif cover.state == "unknown":
            found = _unknown(stack, target, label, gpu_known=bool(gpu.compute_capability or gpu.gfx))
            yield replace(found, undecided=False) if coverage.beside_discrete(gpu, gpus) else found


def _unknown(stack: Stack, target: Target, label: str, *, gpu_known: bool) -> Finding:
    build = stack.torch
    if not gpu_known:
        return finding(
            "unknown-gpu",
            "warning",
            label,
            f"nothing tells what {label} can run",
            "neither its compute capability nor its gfx target is known",
            undecided=True,
            need="the GPU's compute capability",
        )
    if target.accelerator == "rocm":
        summary = f"the matrix does not know whether torch {build.version} ({build.build}) serves {label}"
    elif coverage.on_tegra(target):
        summary = f"whether cubins of torch {build.version} ({build.build}) run on {label} is not known"
    else:
        summary = f"the matrix does not know the cubins of torch {build.version} ({build.build})"
    return finding(
        "unknown-torch-build", "info", label, summary, undecided=True, need="a measured torch build"
    )


@rule(source="CUDA C++ Programming Guide and HIP documentation, environment variables")
def process_sees_gpus(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The process sees a GPU, and it is known which."""
    del matrix
    if target.accelerator not in _SELECT or coverage.seen_gpus(stack, target):
        return
    if target.gpus:
        hidden = [f"{name}={stack.env[name]}" for name in coverage.visibility(target) if name in stack.env]
        yield finding(
            "no-gpu-visible",
            "error",
            "GPUs",
            f"{hidden[0] if hidden else 'the environment'} hides every GPU from the process",
            need=f"unset {hidden[0].partition('=')[0] if hidden else _SELECT[target.accelerator]}",
            remedy=f"Let {_SELECT[target.accelerator]} name the GPUs to use, or unset it.",
        )
    else:
        yield finding(
            "unknown-gpu",
            "warning",
            "GPUs",
            "which GPUs the machine has is not known",
            undecided=True,
            need="the GPUs' compute capabilities",
        )


@rule("torch", "bitsandbytes", source="coverage of each GPU by itself")
def gpus_agree(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Where the stack serves some of several GPUs, say how to select those."""
    if target.accelerator not in _SELECT or backend_of(stack.torch) != target.accelerator:
        return
    gpus = coverage.seen_gpus(stack, target)
    choice = coverage.chosen_library(stack, target, matrix)
    library = choice.library if choice else None
    served = [
        coverage.by_torch(gpu, stack.torch, target, matrix, stack.env).state not in ("none", "unknown")
        and (library is None or coverage.by_library(gpu, library, target, stack.env).state != "none")
        for gpu in gpus
    ]
    if len(gpus) > 1 and any(served) and not all(served):
        chosen = tuple(gpu for gpu, good in zip(gpus, served, strict=True) if good)
        yield finding(
            "mixed-gpu-arch",
            "info",
            "GPUs",
            "the stack serves some of the GPUs only",
            remedy="Show the process only those that it serves.",
            commands=(f"export {coverage.select(target, chosen)}",),
        )


@rule(
    "torch",
    "bitsandbytes",
    source="bitsandbytes#1930, pull requests 1939 and 1941; NVIDIA's L4T documentation",
)
def jetson_has_its_own_wheels(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """Wheels for aarch64 servers fail on boards with L4T up to 36, and wheels for an L4T on all else.

    Whether Orin runs wheels for servers on a newer L4T is unknown.
    """
    del matrix
    yield from _made_for_l4t(stack, target)
    servers = _wheels_for_servers(stack)
    if not coverage.on_tegra(target) or target.accelerator != "cuda" or not servers:
        return
    own_cubins = all(
        gpu.compute_capability in stack.torch.cubins for gpu in target.visible_gpus if gpu.compute_capability
    )
    major = coverage.l4t_major(target)
    if major is not None and major <= 36:
        yield finding(
            "jetson-l4t-mismatch",
            "error",
            servers[0],
            f"wheels for aarch64 servers do not run on L4T {target.l4t}",
            "they import, and fail at the first kernel",
            need="wheels made for JetPack",
            remedy="Take torch and bitsandbytes from the Jetson AI Lab's index, or build them on the board.",
        )
    elif not own_cubins:
        yield finding(
            "jetson-l4t-mismatch",
            "warning",
            servers[0],
            "whether wheels for aarch64 servers run on this Jetson board is not known",
            f"L4T {target.l4t or 'unknown'}; torch holds no cubin for exactly this chip",
            undecided=True,
            need="wheels made for JetPack",
            remedy="Take torch and bitsandbytes from the Jetson AI Lab's index, or build them on the board.",
        )


def _made_for_l4t(stack: Stack, target: Target) -> Iterator[Finding]:
    """What a build for one L4T meets on a machine that has another or none."""
    own = coverage.l4t_major(target)
    wheel = stack.bitsandbytes
    made = [("torch", stack.torch.version, stack.torch.l4t)]
    made += [("bitsandbytes", wheel.version, wheel.l4t)] if wheel is not None else []
    for package, release, l4t in made:
        if l4t is None or own == l4t:
            continue
        unknown = coverage.on_tegra(target) and own is None
        yield finding(
            "jetson-l4t-mismatch",
            "warning" if unknown else "error",
            package,
            f"this build of {package} {release} is made for L4T {l4t}",
            f"the machine's L4T is {target.l4t or 'not known'}"
            if coverage.on_tegra(target)
            else "the machine is no Jetson board",
            undecided=unknown,
            need=f"L4T {l4t}",
        )
    if stack.torch.l4t is not None and own == stack.torch.l4t:
        yield finding(
            "cuda-runtime-not-found",
            "info",
            "torch",
            f"this build of torch {stack.torch.version} loads libcudss.so.0, which JetPack does not bring",
            remedy="Add NVIDIA's CUDA repository to apt, and install cuDSS.",
            commands=("sudo apt-get install cudss",),
            source="NVIDIA/Isaac-GR00T#343",
        )


def _wheels_for_servers(stack: Stack) -> list[str]:
    """Which of torch and bitsandbytes are wheels for aarch64 servers, as far as it is known.

    What comes from a base, or stands without the local version that PyTorch's indexes give it, is
    somebody's own; a bitsandbytes beside it may be built on the board.
    """
    build, wheel = stack.torch, stack.bitsandbytes
    if build.index.startswith("base") or (build.index.startswith("pytorch") and build.local is None):
        return []
    if build.l4t is None and not build.index.startswith("jetson"):
        return ["torch"]
    # The tag of wheels for servers, under which a wheel that was built elsewhere does not go.
    published = wheel is not None and wheel.wheel and wheel.platform.startswith("manylinux")
    return ["bitsandbytes"] if published else []


# First releases of bitsandbytes that compute in 4 bits on what is not an NVIDIA GPU.
_SINCE = {
    "cpu": ("0.46.0", "bitsandbytes registers no 4-bit operations for the CPU before 0.46.0"),
    "mps": ("0.47.0", "bitsandbytes lists MPS in 0.46 without kernels, and not at all before"),
}


@rule("bitsandbytes", source="bitsandbytes source at the tags")
def backend_computes(stack: Stack, target: Target, matrix: Matrix) -> Iterator[Finding]:
    """The release has operations for the accelerator, where that is no GPU of NVIDIA or AMD."""
    del matrix
    wheel, since = stack.bitsandbytes, _SINCE.get(target.accelerator)
    if wheel is None or since is None:
        return
    first, why = since
    if within(wheel.version, f"<{first}"):
        yield finding(
            "bnb-too-old",
            "error",
            "bitsandbytes",
            f"bitsandbytes {wheel.version} cannot quantise on {target.accelerator.upper()}",
            why,
            need=f"bitsandbytes >= {first}",
        )
    elif target.accelerator == "mps" and within(wheel.version, ">=0.50"):
        yield finding(
            "missing-python-dep",
            "info",
            "bitsandbytes",
            "on MPS the fast kernels come from the package `kernels`, which asks the hub at run time",
        )
