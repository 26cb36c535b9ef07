"""`lock --export`: a variant as a file to paste: requirements, Dockerfile, devcontainer, sbatch."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, cast

from bnbenv import __version__
from bnbenv.dataclass import dataclass
from bnbenv.env.layout import VARIANT
from bnbenv.errors import UsageError
from bnbenv.judge.loader import backend_of
from bnbenv.lockfile.commands import bundle_command, lock_command, sync_command
from bnbenv.lockfile.difference import some
from bnbenv.workflows.bundle import holds
from bnbenv.workflows.fleet import stack_of
from bnbenv.workflows.request import request_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.judge.stack import Stack
    from bnbenv.lockfile.index import TeamLock, Variant
    from bnbenv.lockfile.pylock import Pylock
    from bnbenv.machine.target import Arch, OsName

# What lets a container see the accelerator, as options of `docker run`.
_DEVICES: Mapping[str, tuple[str, ...]] = {
    "cpu": (),
    "cuda": ("--gpus", "all"),
    "rocm": ("--device=/dev/kfd", "--device=/dev/dri", "--group-add", "video"),
    "xpu": ("--device=/dev/dri",),
}
_PLATFORMS: Mapping[str, str] = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file to paste.

    Attributes:
        name: how it is usually called.
    """

    variant: str
    name: str
    text: str


def export_lock(
    directory: Path, kind: str, *, variant: str | None = None, allow_local: bool = False
) -> Exported:
    """Write the file of a kind for a variant; the only one, where none is named.

    Args:
        allow_local: the lock may name files of this machine's disk.

    Raises:
        UsageError: several variants and none is named, or the kind is not for its system.
        DataError: the lock is invalid or was changed, or the matrix does not know what it is made of.
    """
    from bnbenv.lockfile import index, pylock, text
    from bnbenv.lockfile.safety import refuse_unsafe

    team = index.read(directory)
    chosen = _chosen(team, variant, directory, kind)
    data = index.locked_bytes(directory, chosen, origin=team.origin)
    lock = pylock.parse(text.decode(data, chosen.file), origin=chosen.file)
    refuse_unsafe(lock, allow_local=allow_local)
    if kind == "requirements":
        return Exported(
            variant=chosen.name, name=f"requirements.{chosen.name}.txt", text=_requirements(chosen, lock)
        )
    if chosen.os != "linux":
        linux = [one.name for one in team.variants if one.os == "linux"]
        raise UsageError(
            f"`{chosen.name}` is for {chosen.os}, and a {kind} file is for Linux",
            hint=lock_command(directory, f"--export {kind}", f"--variant {linux[0]}") if linux else None,
        )
    local = " --allow-local" if lock.not_portable() else ""
    stack = _stack(team, chosen)
    if kind == "slurm":
        return Exported(variant=chosen.name, name="bnbenv.sbatch", text=_slurm(chosen, stack, local))
    _refuse_kernels(team, chosen, stack, kind)
    if bundled := holds(directory, chosen.name):
        local += " --wheelhouse ."
    elif local:
        raise _not_in_a_container(directory, chosen, lock, kind)
    if kind == "dockerfile":
        made = _dockerfile(chosen, stack, lock, local, bundled=bundled)
        return Exported(variant=chosen.name, name="Dockerfile", text=made)
    return Exported(variant=chosen.name, name="devcontainer.json", text=_devcontainer(chosen, stack, local))


def _chosen(team: TeamLock, name: str | None, directory: Path, kind: str) -> Variant:
    names = [variant.name for variant in team.variants]
    if name is None and len(names) != 1:
        raise UsageError(
            f"which variant? The lock has {', '.join(names) or 'none'}",
            hint=lock_command(directory, *((f"--export {kind}", f"--variant {names[0]}") if names else ())),
        )
    return team.variant(name or names[0])


def _stack(team: TeamLock, variant: Variant) -> Stack:
    from bnbenv.matrix.load import load

    known = load("torch", "bitsandbytes", platform=cast("tuple[OsName, Arch]", (variant.os, variant.arch)))
    return stack_of(variant, request_of(team)["profile"], known)


def _builds(stack: Stack) -> str:
    """What compiles its kernels at first use, as `toolchain.require_toolchain` looks for it."""
    from bnbenv.matrix.load import load

    builds = next((row.builds for row in load("profiles").profiles if row.name == stack.profile), ())
    return ", ".join(builds) if backend_of(stack.torch) == "cuda" else ""


def _not_in_a_container(directory: Path, variant: Variant, lock: Pylock, kind: str) -> UsageError:
    words = (f"--variant {variant.name}", "--allow-local")
    export = lock_command(Path("BUNDLE"), f"--export {kind}", *words)
    return UsageError(
        f"a container has none of the files of this machine that `{variant.name}` is locked from: "
        + some(lock.not_portable()),
        hint=f"{bundle_command(directory, '-o BUNDLE', *words)}, and then {export}; "
        "or put the files on an index, and lock without --allow-local",
    )


def _refuse_kernels(team: TeamLock, variant: Variant, stack: Stack, kind: str) -> None:
    if names := _builds(stack):
        raise UsageError(
            f"{names} is built from source and compiles its kernels at first use, and the image that "
            f"a {kind} starts from has no CUDA toolkit",
            hint="in an image of NVIDIA's with `devel` in its name: "
            + sync_command(Path(team.origin).parent, f"--variant {variant.name}"),
        )


def _requirements(variant: Variant, lock: Pylock) -> str:
    from bnbenv.install.uv_files import default_address

    homes = sorted({package.index for package in lock.packages if package.index} - {default_address()})
    urls = {file.url for package in lock.packages for file in package.artefacts if file.url}
    local = sorted({url.rpartition("/")[0] for url in urls if url.lower().startswith("file:")})
    lines = [
        *_told(lock),
        f"# {variant.file} as requirements for Python {variant.python}, every file pinned by its hash:",
        "#   uv pip install --require-hashes --index-strategy unsafe-best-match -r FILE",
        *(f"--extra-index-url {home}" for home in homes),
        *(f"--find-links {place}" for place in local),
    ]
    for package in lock.packages:
        marker = f" ; {package.marker}" if package.marker else ""
        hashes = sorted({f"--hash=sha256:{file.sha256}" for file in package.artefacts if file.sha256})
        lines.append(" \\\n    ".join([f"{package.name}=={package.version}{marker}", *hashes]))
    return "\n".join(lines) + "\n"


def _told(lock: Pylock) -> tuple[str, ...]:
    """A comment on what is nowhere but on this machine."""
    local = lock.not_portable()
    return (f"# ONLY THIS MACHINE HAS {some(local)}",) if local else ()


def _dockerfile(variant: Variant, stack: Stack, lock: Pylock, local: str, *, bundled: bool) -> str:
    accelerator = backend_of(stack.torch)
    slim = "slim-" if lock.all_wheels else ""  # what has no wheel may want a compiler
    options = "".join(f"{option} " for option in _DEVICES[accelerator])
    start = 'bnbenv verify /opt/env --require-accelerator --quiet >&2 && exec "$@"'
    where = "the processor" if accelerator == "cpu" else "the GPU; where none is visible, it exits with 3"
    mount = "--mount=type=bind,source=wheels,target=/opt/lock/wheels \\\n " if bundled else ""
    driver = "# Intel's GPU driver (Level Zero) does not come from the host: install it here.\n"
    return f"""\
# The variant `{variant.name}` of a bnbenv lock as an image. Build it beside bnbenv.lock, without a GPU too:
#   docker build --platform {_PLATFORMS[variant.arch]} -t IMAGE .
#   docker run --rm {options}IMAGE python train.py
FROM python:{variant.python}-{slim}bookworm
{driver if accelerator == "xpu" else ""}
# A site's own index, without a password, which the image would keep: --build-arg PIP_INDEX_URL=…
ARG PIP_INDEX_URL
ARG BNBENV_VERSION={__version__}
RUN python -m pip install --no-cache-dir "bnbenv==${{BNBENV_VERSION}}"

WORKDIR /opt/lock
COPY bnbenv.lock {variant.file} ./
# What is built here is checked against its hashes and loads; it computes nothing where there is no GPU.
RUN {mount}bnbenv sync /opt/lock --variant {variant.name} --path /opt/env --link-mode copy --yes{local} \\
 && rm -rf /root/.cache
ENV PATH="/opt/env/bin:${{PATH}}"

# Before anything starts, the kernels are compared with references on {where}.
WORKDIR /work
ENTRYPOINT {json.dumps(["/bin/sh", "-c", start, "bnbenv"])}
CMD ["python"]
"""


def _devcontainer(variant: Variant, stack: Stack, local: str) -> str:
    document: dict[str, object] = {
        "name": f"bnbenv {variant.name}",
        "image": f"python:{variant.python}-bookworm",
        "onCreateCommand": f"python -m pip install bnbenv=={__version__}",
        "updateContentCommand": f"bnbenv sync --variant {variant.name} --path .venv --yes{local}",
        "postStartCommand": "bnbenv verify .venv --require-accelerator",
        "customizations": {
            "vscode": {
                "settings": {"python.defaultInterpreterPath": "${containerWorkspaceFolder}/.venv/bin/python"}
            }
        },
    }
    if options := _DEVICES[backend_of(stack.torch)]:
        document["hostRequirements"] = {"gpu": True}
        document["runArgs"] = list(options)
    return json.dumps(document, indent=2) + "\n"


def _slurm(variant: Variant, stack: Stack, local: str) -> str:
    gpus = "#SBATCH --gpus-per-node=1\n" if backend_of(stack.torch) != "cpu" else ""
    builds = _builds(stack)
    tools = (
        f"# {builds} is built on the nodes: let PATH and CUDA_HOME show a C++ compiler and a CUDA toolkit.\n"
    )
    return f"""\
#!/bin/bash
# A job that builds, on every node of the job, the environment that the lock has for that node's hardware,
# and runs a program in it:
#   sbatch bnbenv.sbatch LOCKDIR python train.py
# Nodes build each on its own disk, at once. Where they have no network, LOCKDIR is a directory that
# `bnbenv bundle -o` made: everything is taken from there.
{tools if builds else ""}#SBATCH --job-name=bnbenv-{variant.name}
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
{gpus}set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: sbatch bnbenv.sbatch LOCKDIR COMMAND..." >&2
  exit 2
fi
lock=$1
shift
wheels=
if [ -e "$lock/manifest.json" ] && [ -d "$lock/wheels" ]; then
  wheels=$lock
fi
# Jobs with equal locks share an environment; another lock does not switch it below a job that runs. Old ones,
# and what you set by `bnbenv config`, for you alone to read, stay on the node's disk where the job's end does
# not clear it, until `bnbenv remove` and `bnbenv self uninstall`.
digest=$(sha256sum <"$lock/bnbenv.lock")
name={quote(stack.profile)}-${{digest:0:12}}
# Node-local: caches and environments on a network file system are slow, and every node would wait.
disk="${{SLURM_TMPDIR:-${{TMPDIR:-/tmp}}}}/bnbenv-$(id -u)"
settings="${{BNBENV_HOME:-${{XDG_CONFIG_HOME:-${{HOME:-}}/.config}}/bnbenv}}/config.toml"
export BNBENV_HOME="$disk/home" UV_CACHE_DIR="$disk/uv-cache"

# Its name can be guessed: what another user put there would run as you. What you set by `bnbenv config` goes
# along.
# shellcheck disable=SC2016  # expanded on the nodes
srun --ntasks-per-node=1 bash -c 'mkdir -m 700 "$0" 2>/dev/null
  if [ ! -d "$0" ] || [ ! -O "$0" ] || [ -L "$0" ]; then
    echo "$(hostname): $0 is not a directory of yours" >&2
    exit 1
  fi
  mkdir -p "$0/home"
  cp "$1" "$0/home/config.$$" 2>/dev/null && exec mv "$0/home/config.$$" "$0/home/config.toml"
  rm -f "$0/home/config.toml"' "$disk" "$settings"
# Jobs that need several variants of the lock may share a disk: each variant has an environment of its own.
# The exit code is 3 on a node that the lock does not serve.
srun --ntasks-per-node=1 bnbenv sync "$lock" --name "$name-{VARIANT}" --yes --quiet{local} \\
  ${{wheels:+--wheelhouse "$wheels"}}
# shellcheck disable=SC2016  # the same
srun --ntasks-per-node=1 bash -c 'said=$(bnbenv sync "$0" --name "$1-{VARIANT}" --dry-run --json{local} \\
    --quiet ${{2:+--wheelhouse "$2"}}) || {{ code=$?; echo "$said" >&2; exit "$code"; }}
  [[ $said =~ \\"variant\\":[^\\"]*\\"([^\\"]+) ]]
  exec bnbenv run "$1-${{BASH_REMATCH[1]}}" -- "${{@:3}}"' "$lock" "$name" "$wheels" "$@"
"""
