"""`lock --export`: a variant as a file to paste: requirements, Dockerfile, devcontainer, sbatch."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from bnbenv import __version__
from bnbenv.dataclass import dataclass
from bnbenv.errors import UsageError
from bnbenv.lockfile.commands import lock_command
from bnbenv.workflows.request import request_of

if TYPE_CHECKING:
    from bnbenv.lockfile.index import TeamLock, Variant
    from bnbenv.lockfile.pylock import Pylock


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
        DataError: the lock is invalid or was changed.
    """
    from bnbenv.lockfile import index, pylock, text
    from bnbenv.lockfile.safety import refuse_unsafe

    team = index.read(directory)
    chosen = _chosen(team, variant, lock_command(directory, f"--export {kind}", "--variant"))
    data = index.locked_bytes(directory, chosen, origin=team.origin)
    lock = pylock.parse(text.decode(data, chosen.file), origin=chosen.file)
    refuse_unsafe(lock, allow_local=allow_local)
    if kind == "requirements":
        return Exported(
            variant=chosen.name, name=f"requirements.{chosen.name}.txt", text=_requirements(chosen, lock)
        )
    if chosen.os != "linux":
        raise UsageError(f"`{chosen.name}` is for {chosen.os}, and a {kind} file is for Linux")
    local = " --allow-local" if lock.not_portable() else ""
    if kind == "dockerfile":
        return Exported(variant=chosen.name, name="Dockerfile", text=_dockerfile(chosen, local))
    if kind == "devcontainer":
        return Exported(variant=chosen.name, name="devcontainer.json", text=_devcontainer(chosen, local))
    return Exported(variant=chosen.name, name="bnbenv.sbatch", text=_slurm(team, chosen, local))


def _chosen(team: TeamLock, name: str | None, command: str) -> Variant:
    names = [variant.name for variant in team.variants]
    if name is None and len(names) != 1:
        raise UsageError(
            f"which variant? The lock has {', '.join(names) or 'none'}",
            hint=f"{command} {names[0]}" if names else lock_command(Path(team.origin).parent),
        )
    return team.variant(name or names[0])


def _gpu(variant: Variant) -> bool:
    return variant.torch["build"] not in ("cpu", "mps")


def _requirements(variant: Variant, lock: Pylock) -> str:
    from bnbenv.install.uv_files import default_address

    homes = sorted({package.index for package in lock.packages if package.index} - {default_address()})
    urls = {file.url for package in lock.packages for file in package.artefacts if file.url}
    local = sorted({url.rpartition("/")[0] for url in urls if url.lower().startswith("file:")})
    lines = [
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


def _dockerfile(variant: Variant, local: str) -> str:
    run = "docker run --rm --gpus all IMAGE" if _gpu(variant) else "docker run --rm IMAGE"
    return f"""\
# The variant `{variant.name}` of a bnbenv lock as an image. Build it beside bnbenv.lock:
#   docker build -t IMAGE .        (the builder needs no GPU)
#   {run} python train.py
FROM python:{variant.python}-slim-bookworm

# A site's own index: --build-arg PIP_INDEX_URL=…
ARG BNBENV_VERSION={__version__}
RUN python -m pip install --no-cache-dir "bnbenv==${{BNBENV_VERSION}}"

WORKDIR /opt/lock
COPY bnbenv.lock {variant.file} ./
# What is built here is checked against its hashes and loads; it computes nothing where there is no GPU.
RUN bnbenv sync /opt/lock --variant {variant.name} --path /opt/env --link-mode copy --yes{local} \\
 && rm -rf /root/.cache
ENV PATH="/opt/env/bin:${{PATH}}"

# On the GPU of the machine that runs it, the kernels are compared with references before anything starts.
WORKDIR /work
ENTRYPOINT ["/bin/sh", "-c", "bnbenv verify /opt/env --quiet >&2 && exec \\"$@\\"", "bnbenv"]
CMD ["python"]
"""


def _devcontainer(variant: Variant, local: str) -> str:
    document: dict[str, object] = {
        "name": f"bnbenv {variant.name}",
        "image": f"python:{variant.python}-bookworm",
        "onCreateCommand": f"python -m pip install bnbenv=={__version__}",
        "updateContentCommand": f"bnbenv sync --variant {variant.name} --path .venv --yes{local}",
        "postStartCommand": "bnbenv verify .venv",
        "customizations": {
            "vscode": {
                "settings": {"python.defaultInterpreterPath": "${containerWorkspaceFolder}/.venv/bin/python"}
            }
        },
    }
    if _gpu(variant):
        document["hostRequirements"] = {"gpu": True}
        document["runArgs"] = ["--gpus", "all"]
    return json.dumps(document, indent=2) + "\n"


def _slurm(team: TeamLock, variant: Variant, local: str) -> str:
    gpus = "#SBATCH --gpus-per-node=1\n" if _gpu(variant) else ""
    name = quote(request_of(team)["profile"])
    return f"""\
#!/bin/bash
# A job that builds, on every node of the job, the environment that the lock has for that node's hardware,
# and runs a program in it:
#   sbatch bnbenv.sbatch LOCKDIR python train.py
# The first two lines of its work serve as a prolog too. Nodes build each on its own disk, at once.
#SBATCH --job-name=bnbenv-{variant.name}
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
{gpus}set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: sbatch bnbenv.sbatch LOCKDIR COMMAND..." >&2
  exit 2
fi
lock=$1
shift
# Node-local: caches and environments on a network file system are slow, and every node would wait.
local_disk="${{SLURM_TMPDIR:-${{TMPDIR:-/tmp}}}}/bnbenv-$(id -u)"
export BNBENV_HOME="$local_disk/home" UV_CACHE_DIR="$local_disk/uv-cache"

# The exit code is 3 on a node that the lock does not serve.
srun --ntasks-per-node=1 bnbenv sync "$lock" --name {name} --frozen --yes --quiet{local}
srun --ntasks-per-node=1 bnbenv run {name} -- "$@"
"""
