"""`kernel`: let Jupyter start an environment, list which ones it can, and take that back."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from bnbenv.dataclass import dataclass
from bnbenv.env import kernel as kernels
from bnbenv.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bnbenv.env.kernel import Kernel
    from bnbenv.workflows.environment import Located
    from bnbenv.workflows.install import Changed, ChangeRequest
    from bnbenv.workflows.voice import Voice

NEEDED = "ipykernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The answer of `kernel install`.

    Attributes:
        added: what `install` did to bring ipykernel; ``None`` where it was there.
    """

    kernel: Kernel
    added: Changed | None


def register(
    located: Located,
    asked: ChangeRequest,
    voice: Voice,
    environ: Mapping[str, str],
    *,
    name: str | None = None,
    shown: str | None = None,
    yes: bool = False,
) -> Registered:
    """Write a kernel for an environment; one without ipykernel gets it, and into its lock.

    Args:
        asked: how packages may be installed; ``dry_run`` counts for the kernel too.
        name: as Jupyter shall know it.
        shown: as people shall see it.

    Raises:
        EnvironmentProblem: another maker's environment has no ipykernel.
        UsageError: the name cannot be used, or is another's.
        ExternalError, UnsolvableError, Interrupted: see `install`.
    """
    from bnbenv.workflows.install import install

    place = located.place
    called = place.name if place is not None and place.form == "home" else located.directory.name
    if place is not None and place.form != "home":
        called = place.link.name
    link = place.link if place is not None else located.directory
    chosen = name or kernels.kernel_name(called)
    if chosen != kernels.kernel_name(chosen).removeprefix("bnbenv-"):
        raise UsageError(
            f"`{chosen}` cannot be a kernel's name: it is made of lower-case letters, digits, `.`, `_`, `-`",
            hint="bnbenv kernel install --name " + kernels.kernel_name(called),
            code="bad-name",
        )
    kernel = kernels.Kernel(
        name=chosen,
        shown=shown or f"{called} (bnbenv)",
        link=link,
        directory=kernels.kernels_directory(environ) / chosen,
    )
    _refuse_foreign(kernel, environ)
    added = None
    if located.read_installed().find(NEEDED) is None:
        if place is None:
            install_ipykernel = ["uv", "pip", "install", "--python", str(located.python), NEEDED]
            raise EnvironmentProblem(
                f"`{located.directory}` has no ipykernel, which Jupyter starts",
                hint=f"{shlex.join(install_ipykernel)}, then the same command again",
            )
        voice.progress(f"{NEEDED} is not there yet: it is added, and to the lock")
        from bnbenv.dataclass import replace

        added = install(located, replace(asked, packages=(NEEDED,)), voice, environ, yes=yes)
        if added.realised is not None and not added.realised.changed:
            raise EnvironmentProblem(
                f"`{called}` does not compute rightly with {NEEDED}; no kernel was written",
                hint=shlex.join(["bnbenv", "verify", located.name]),
                code="self-test-failed",
            )
    if not asked.dry_run:
        kernels.write_kernel(kernel)
    return Registered(kernel=kernel, added=added)


def _refuse_foreign(kernel: Kernel, environ: Mapping[str, str]) -> None:
    """Leave a kernel alone that bnbenv did not write, or that starts another environment."""
    known = {found.name: found for found in kernels.list_kernels(environ)}
    other = known.get(kernel.name)
    if other is not None and not kernels.same_place(other.link, kernel.link):
        raise UsageError(
            f"the kernel `{kernel.name}` starts `{other.link}`",
            hint=f"--name OTHER, or bnbenv kernel remove {kernel.name}",
            code="path-occupied",
        )
    if other is None and kernel.directory.exists():
        raise UsageError(
            f"there is a kernel `{kernel.name}` that bnbenv did not make: {kernel.directory}",
            hint="--name OTHER",
            code="path-occupied",
        )


def find(text: str, environ: Mapping[str, str], cwd: Path) -> Kernel:
    """A kernel by its name, or by its environment's.

    Raises:
        EnvironmentProblem: there is none.
    """
    from bnbenv.env.layout import Layout

    known = kernels.list_kernels(environ)
    link = Layout.find(environ).home / "envs" / text
    for kernel in known:
        if kernel.name == text:
            return kernel
    for kernel in known:
        if any(kernels.same_place(kernel.link, path) for path in (link, cwd / text)):
            return kernel
    raise EnvironmentProblem(
        f"there is no kernel `{text}` of bnbenv's"
        + (f"; there are {', '.join(f'`{it.name}`' for it in known)}" if known else ""),
        hint="bnbenv kernel list",
    )
