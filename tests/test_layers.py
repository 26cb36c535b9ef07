from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "bnbenv"

# Who may import whom, by area. A module of an area sees its own area, and what stands to the right.
FOUNDATION = {
    "dataclass",
    "namedtuple",
    "errors",
    "home",
    "markers",
    "names",
    "renames",
    "sha256",
    "toml",
    "tool",
    "torch_family",
    "typed_paths",
    "units",
    "version_py",
    "texts",
    "words",
    "__init__",
}
# Types of one area that every other area may name: the contract between them. The rule by which variables
# hide GPUs is part of it: who looks at a machine and who judges it must apply the same.
TYPES = {
    "bnbenv.machine.target",
    "bnbenv.machine.host",
    "bnbenv.machine.visible",
    "bnbenv.matrix.rows",
    "bnbenv.matrix.matrix",
    "bnbenv.judge.stack",
    "bnbenv.selftest.verdict",
}
ADAPTERS = {"machine", "matrix", "env", "install", "selftest"}
ALLOWED: dict[str, set[str]] = {
    **{area: set() for area in ADAPTERS},
    "judge": set(),
    "lockfile": ADAPTERS | {"judge"},
    "plan": ADAPTERS | {"judge", "lockfile"},
    "doctor": ADAPTERS | {"judge", "lockfile"},
    "memory": ADAPTERS | {"judge"},
    "workflows": ADAPTERS | {"judge", "lockfile", "plan", "doctor", "memory"},
    "cli": ADAPTERS | {"judge", "lockfile", "plan", "doctor", "memory", "workflows"},
}
# Modules of the standard library that do I/O, read the clock or start processes.
IMPURE = {"subprocess", "socket", "time", "shutil", "tempfile", "urllib.request", "http", "os", "random"}
HEAVY = {
    "packaging",
    "pip_api",
    "platformdirs",
    "psutil",
    "pypi_simple",
    "pynvml",
    "requests",
    "rich",
    "shtab",
    "tomli_w",
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def area_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def imports(tree: ast.AST, *, top_level_only: bool = False) -> set[str]:
    """Every module imported at run time: blocks under ``if TYPE_CHECKING`` are for the type checker."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        match node:
            case ast.If(test=test, orelse=orelse) if is_type_checking(test):
                for statement in orelse:
                    visit(statement)
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda() if top_level_only:
                return
            case ast.Import(names=names):
                found.update(alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=0) if module:
                found.add(module)
                if module == "bnbenv" or (PACKAGE.parent / module.replace(".", "/")).is_dir():
                    found.update(f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                found.add("<relative>")
            case _:
                pass
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def forbidden(module: str, imported: set[str]) -> list[str]:
    """What `module` imports against the layers."""
    area = area_of(module)
    wrong = []
    for other in sorted(imported):
        if other == "<relative>":
            wrong.append("a relative import")
            continue
        if other != "bnbenv" and not other.startswith("bnbenv."):
            continue
        target = area_of(other)
        if target in FOUNDATION or other in TYPES or other == "bnbenv" or target == area:
            continue
        if other == "bnbenv.__version__":
            continue
        # `from bnbenv.matrix import rows` names the package and the module: the module decides.
        if other.count(".") == 1 and any(name.startswith(other + ".") for name in imported):
            continue
        if area in FOUNDATION | {"__main__"} and not (area == "__main__" and target == "cli"):
            wrong.append(f"{other} (the foundation imports nobody)")
        elif target not in ALLOWED.get(area, set()) and area != "__main__":
            wrong.append(other)
    return wrong


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert forbidden(name_of(path), imports(tree)) == []


@pytest.mark.parametrize(
    ("module", "imported", "count"),
    [
        ("bnbenv.install.uv", {"bnbenv.env.layout"}, 1),
        ("bnbenv.judge.rules", {"bnbenv.matrix.load"}, 1),
        ("bnbenv.judge.rules", {"bnbenv.matrix.rows", "bnbenv.units"}, 0),
        ("bnbenv.workflows.create", {"bnbenv.cli.ui"}, 1),
        ("bnbenv.cli.main", {"bnbenv.workflows.create"}, 0),
        ("bnbenv.units", {"bnbenv.machine.target"}, 0),
        ("bnbenv.errors", {"bnbenv.machine.probe"}, 1),
        ("bnbenv.env.state", {"<relative>"}, 1),
    ],
)
def test_the_check_itself(module: str, imported: set[str], count: int) -> None:
    assert len(forbidden(module, imported)) == count


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse(
        "import os\nTYPE_CHECKING = False\nif TYPE_CHECKING:\n    import a\nelse:\n    import b\n"
        "def f():\n    from c.d import e\n"
    )
    assert imports(tree) == {"os", "b", "c.d"}
    assert imports(tree, top_level_only=True) == {"os", "b"}


@pytest.mark.parametrize(
    "path", [path for path in modules() if area_of(name_of(path)) == "judge"], ids=name_of
)
def test_the_judge_is_pure(path: Path) -> None:
    found = imports(ast.parse(path.read_text(encoding="utf-8")))
    assert found & IMPURE == set()
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert calls & {"open", "print", "input"} == set()


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_heavy_imports_stay_inside_functions(path: Path) -> None:
    if path.name == "script.py" and path.parent.name == "selftest":
        pytest.skip("runs in the environment's interpreter")
    found = imports(ast.parse(path.read_text(encoding="utf-8")), top_level_only=True)
    assert {name for name in found if name.split(".")[0] in HEAVY} == set()


def test_only_units_spells_cuda_tags() -> None:
    spelled = re.compile(r"""\b[rR]?[fF][rR]?(?P<quote>["']).*?\bcu\{""")
    guilty = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in (PACKAGE, ROOT / "scripts")
        for path in sorted(folder.rglob("*.py"))
        if path != PACKAGE / "units.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if spelled.search(line)
    ]
    assert guilty == []
    assert spelled.search('tag = f"cu{digits}"')


def test_only_the_cli_prints() -> None:
    guilty = [
        f"{name_of(path)}:{node.lineno}"
        for path in modules()
        if area_of(name_of(path)) != "cli" and name_of(path) != "bnbenv.selftest.script"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert guilty == []
