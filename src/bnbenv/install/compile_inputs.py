"""Writes what uv compiles: a project with its sources, constraints and overrides, and the command line."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from bnbenv.install.uv_files import pinned_table, write_private
from bnbenv.names import normalized
from bnbenv.torch_family import BUILT_AGAINST_TORCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from bnbenv.install.compile import CompileRequest
    from bnbenv.install.sources import Index, Sources

_WITH, _CONSTRAINTS, _OVERRIDES = "with.in", "constraints.txt", "overrides.txt"


def write_inputs(
    directory: Path, request: CompileRequest, index: Index | None, pinned: Mapping[str, str | None]
) -> None:
    """Write the project, in which torch and its companions are pinned, and what limits it."""
    import tomli_w

    readable, others = _split(request.requirements)
    asked = {name_of(requirement) for requirement in readable}
    dependencies = [
        *readable,
        *(
            requirement or name
            for name, requirement in pinned.items()
            if requirement is not None or name not in asked
        ),
    ]
    project: dict[str, Any] = {
        "project": {
            "name": "bnbenv-request",
            "version": "0",
            "requires-python": f"=={request.python}.*",
            "dependencies": dependencies,
        }
    }
    if index is not None:
        project["tool"] = {
            "uv": {
                "sources": {name: {"index": index.name} for name in pinned},
                "index": [pinned_table(index)],
            }
        }
    overrides = [f"{name} ; sys_platform == 'never'" for name in sorted(request.provided)]
    write_private(directory / "pyproject.toml", tomli_w.dumps(project))
    for name, lines in ((_WITH, others), (_CONSTRAINTS, request.constraints), (_OVERRIDES, overrides)):
        if lines:
            write_private(directory / name, "".join(f"{line}\n" for line in lines))


def compile_arguments(
    directory: Path,
    request: CompileRequest,
    sources: Sources,
    output: Path,
    pinned: Iterable[str],
    *,
    annotated: bool = False,
) -> list[str]:
    """The command that compiles what `write_inputs` wrote; `annotated` lists each package's index."""
    form = ["--emit-index-annotation", "--no-annotate"] if annotated else ["--no-header"]
    arguments = [
        "pip",
        "compile",
        str(directory / "pyproject.toml"),
        *_present("", directory / _WITH),
        *(str(file.absolute()) for file in request.requirement_files),
        "--config-file",
        str(directory / "uv.toml"),
        "--format",
        "requirements.txt" if annotated else "pylock.toml",
        "--output-file",
        str(output),
        *form,
        "--python",
        str(request.interpreter or sys.executable),
        "--python-version",
        request.python,
        *_present("--constraints", directory / _CONSTRAINTS),
        *_present("--overrides", directory / _OVERRIDES),
        "--preview-features",
        "pylock",
        # No source release of these could be built here into what was judged.
        *(
            part
            for name in ("torch", "bitsandbytes", *BUILT_AGAINST_TORCH)
            for part in ("--only-binary", name)
        ),
    ]
    if request.platform:
        arguments += ["--python-platform", request.platform]
    if newer := request.exclude_newer or sources.exclude_newer:
        arguments += ["--exclude-newer", newer]
        # Torch's indexes tell no dates, and without a date uv takes a file for too new;
        # which torch it is has been decided before.
        arguments += [part for name in pinned for part in ("--exclude-newer-package", f"{name}=false")]
    for name in request.upgrade:
        arguments += ["--upgrade-package", name]
    if sources.offline:
        arguments.append("--offline")
    return arguments


def _present(option: str, file: Path) -> list[str]:
    return [part for part in (option, str(file)) if part] if file.exists() else []


def _split(requirements: Sequence[str]) -> tuple[list[str], list[str]]:
    readable: list[str] = []
    others: list[str] = []
    for text in requirements:
        (readable if _is_standard(text) else others).append(text)
    return readable, others


def _is_standard(text: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
    except InvalidRequirement:
        return False
    return True


def name_of(requirement: str) -> str:
    """The normalised name at the head of a requirement; the requirement itself where there is none."""
    match = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
    return normalized(match[1]) if match else requirement
