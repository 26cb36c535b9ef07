"""Where the process runs: WSL, a container, a Slurm cluster."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from bnbenv.machine.host import Fact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnbenv.machine.tree import Tree

_SLURM_TOOLS = ("srun", "sbatch", "salloc")


def wsl_version(kernel: str) -> Literal[1, 2] | None:
    """Which WSL the kernel belongs to: ``5.15.153.1-microsoft-standard-WSL2``, ``4.4.0-19041-Microsoft``.

    A kernel that the user built for WSL2 keeps ``WSL2`` in its name or says ``microsoft-standard``.
    """
    lower = kernel.lower()
    if "wsl2" in lower or "microsoft-standard" in lower:
        return 2
    return 1 if "microsoft" in lower else None


def find_container(tree: Tree, environ: Mapping[str, str]) -> Fact | None:
    """The kind of container, by the marks that each leaves."""
    for variable, kind in (
        ("APPTAINER_CONTAINER", "apptainer"),
        ("SINGULARITY_CONTAINER", "singularity"),
        ("KUBERNETES_SERVICE_HOST", "kubernetes"),
    ):
        if environ.get(variable):
            return Fact(name="container", value=kind, source="environment")
    for path, kind in (
        ("/run/.containerenv", "podman"),
        ("/.dockerenv", "docker"),
        ("/.singularity.d", "apptainer"),
    ):
        if tree.exists(path):
            return Fact(name="container", value=kind, source=path)
    if kind_text := environ.get("container"):
        return Fact(name="container", value=kind_text, source="environment")
    groups = tree.text("/proc/1/cgroup", 4096) or ""
    if match := re.search(r"docker|kubepods|containerd|libpod|lxc", groups):
        return Fact(name="container", value=match[0], source="/proc/1/cgroup")
    return None


def find_slurm(tree: Tree, environ: Mapping[str, str]) -> tuple[Literal["login", "job"], Fact] | None:
    """Whether this is a Slurm job, or a node with Slurm's tools outside of one."""
    if job := environ.get("SLURM_JOB_ID"):
        return "job", Fact(name="slurm", value=f"job {job}", source="SLURM_JOB_ID")
    for tool in _SLURM_TOOLS:
        if found := tree.find_program(tool, environ.get("PATH")):
            return "login", Fact(name="slurm", value="outside a job", source=found)
    return None
