"""Directories on ``LD_LIBRARY_PATH`` whose CUDA libraries the loader takes before those that torch brings."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.env import durable
from bnbenv.judge.rules.rule import finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bnbenv.doctor.surroundings import Assignment
    from bnbenv.env.installed import Installed
    from bnbenv.env.torch import InstalledTorch
    from bnbenv.judge.stack import Finding

_CUDA_LIBRARY = re.compile(
    r"lib(?:cudart|cublas|cublasLt|cudnn\w*|cufft|cufile|cupti|curand|cusolver|cusparse|cusparseLt|nccl|"
    r"nvJitLink|nvrtc|nvToolsExt|nvshmem_host)\.so\.\d+"
)
_RUNTIME = re.compile(r"lib(?:cudart|cublas)\.so\.(\d+)")
_SHOWN = 5
_SOURCE = "ld.so(8): LD_LIBRARY_PATH comes before the RUNPATH that torch's libraries carry"


def check_loader_path(
    installed: Installed,
    torch: InstalledTorch | None,
    environ: Mapping[str, str],
    assignments: Iterable[Assignment] = (),
) -> Iterator[Finding]:
    """Compare what lies on ``LD_LIBRARY_PATH`` with the libraries that torch's wheels bring.

    Only a file of the same name hides another one: a directory of another CUDA major version does not, and
    is told as a notice.

    Args:
        installed: the environment with its base.
        torch: the torch that would be imported.
        environ: the variables of the process.
        assignments: lines of start-up files; those that set the variable are told beside it, and count
            where this process does not have it.
    """
    lines = [line for line in assignments if line.name == "LD_LIBRARY_PATH"]
    here = "LD_LIBRARY_PATH" in environ
    values = [environ["LD_LIBRARY_PATH"]] if here else [line.value for line in lines]
    # What stands in a file with a variable in it is not known before a shell reads it.
    entries = [entry for value in values for entry in value.split(":") if entry and (here or entry[0] == "/")]
    if torch is None or torch.cuda is None or not entries:
        return
    own = own_libraries(installed, torch)
    where = tuple(map(str, lines))
    on, unset = "on LD_LIBRARY_PATH", ("unset LD_LIBRARY_PATH",)
    if not here:
        on = "which a start-up file puts on LD_LIBRARY_PATH,"
        unset = (lines[0].removal,)
    for entry in dict.fromkeys(entries):
        names = durable.names_in(entry)
        hidden = [name for name in names if name in own and not _same(Path(entry) / name, own[name])]
        majors = sorted({match[1] for name in names if (match := _RUNTIME.match(name))})
        if hidden:
            yield finding(
                "cuda-conflict-ldpath",
                "warning",
                "LD_LIBRARY_PATH",
                f"`{entry}` {on} wins over {len(hidden)} CUDA libraries that torch brings",
                *(f"{Path(entry) / name} hides {own[name]}" for name in hidden[:_SHOWN]),
                f"torch is built for CUDA {torch.cuda}",
                *where,
                remedy="Unset the variable: torch finds its libraries without it.",
                commands=unset,
                source=_SOURCE,
            )
        elif "libcuda.so.1" in names and Path(entry).name == "stubs":
            yield finding(
                "cuda-conflict-ldpath",
                "error" if here else "warning",
                "LD_LIBRARY_PATH",
                f"`{entry}` {on} hides the driver's library by a stub for linking",
                "every call into the driver fails: the CUDA driver is a stub library",
                *where,
                remedy="Take the directory out of LD_LIBRARY_PATH.",
                commands=unset,
                source=_SOURCE,
            )
        elif majors and torch.cuda.split(".")[0] not in majors:
            yield finding(
                "cuda-conflict-ldpath",
                "info",
                "LD_LIBRARY_PATH",
                f"`{entry}` {on} is of CUDA {', '.join(majors)}, torch of {torch.cuda}",
                "the names differ, so that it hides nothing of torch; what asks for no version may take it",
                *where,
                source=_SOURCE,
            )


def own_libraries(installed: Installed, torch: InstalledTorch) -> dict[str, Path]:
    """The CUDA libraries that torch's wheel and NVIDIA's bring, by the name that the loader asks for."""
    found: dict[str, Path] = {}
    places = [torch.directory / "lib"]
    for site in installed.site_packages:
        places += [site / "nvidia" / part / "lib" for part in durable.names_in(site / "nvidia")]
    for place in places:
        for name in durable.names_in(place):
            if _CUDA_LIBRARY.fullmatch(name):
                found.setdefault(name, place / name)
    return found


def _same(one: Path, other: Path) -> bool:
    """One file, or a copy of the same length."""
    try:
        return os.path.realpath(one) == os.path.realpath(other) or one.stat().st_size == other.stat().st_size
    except OSError:
        return True  # the loader passes over what it cannot open
