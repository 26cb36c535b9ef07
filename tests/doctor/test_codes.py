"""Every code that doctor may tell is a cause of the one list."""

from __future__ import annotations

import ast
from pathlib import Path

import bnbenv
from bnbenv.doctor.ranking import _ORDER
from bnbenv.matrix.load import load

PACKAGE = Path(bnbenv.__file__).parent
KNOWN = {row.id for row in load("causes").causes}


def told(path: Path) -> set[str]:
    """The codes that calls of `finding` in a module name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "finding":
            match node.args:
                case [ast.Constant(value=str() as code), *_]:
                    found.add(code)
                case [ast.IfExp(body=ast.Constant(value=one), orelse=ast.Constant(value=other)), *_]:
                    found |= {str(one), str(other)}
                case _:
                    pass
    return found


def test_codes_are_causes() -> None:
    modules = [*(PACKAGE / "doctor").glob("*.py"), PACKAGE / "workflows" / "doctor.py"]
    codes = set().union(*(told(module) for module in modules))
    assert len(codes) > 20
    assert codes - KNOWN == set()
    assert set(_ORDER) - KNOWN == set()
