"""Puts the data of `compat/` into the wheel; what stands there as TOML, for hands, goes in as JSON.

The same rows, read four times as fast: of what most commands load, TOML would take the greater part.
"""

from __future__ import annotations

import json
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import tomli
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PackagedData(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling calls."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to a wheel; an editable install reads those of the checkout."""
        if version == "editable":
            return
        self._scratch = Path(mkdtemp(prefix="bnbenv-data-"))
        for path in sorted(Path(self.root, "compat").iterdir()):
            packaged = path
            if path.suffix == ".toml":
                packaged = self._scratch / path.with_suffix(".json").name
                packaged.write_text(as_json(path.read_text(encoding="utf-8")), encoding="utf-8")
            build_data["force_include"][str(packaged)] = f"bnbenv/_compat/{packaged.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made."""
        del build_data, artifact_path
        if version != "editable":
            rmtree(self._scratch)


def as_json(text: str) -> str:
    """A data file in JSON: schema and revision on the first line, then a row a line."""
    document = tomli.loads(text)
    lists = {name: held for name, held in document.items() if isinstance(held, list)}
    head = {name: held for name, held in document.items() if name not in lists}
    parts = [json.dumps(head, ensure_ascii=False).removesuffix("}")]
    for name, rows in lists.items():
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
    return ", ".join(parts) + "}\n"
