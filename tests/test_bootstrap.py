from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).resolve().parents[1] / "bootstrap.py"

# Loads the file as a module with one thing of the interpreter changed, then asks for its check.
ASK = """
import sys
{change}
namespace = {{"__name__": "bootstrap", "__file__": {file!r}}}
exec(compile(open({file!r}).read(), "bootstrap.py", "exec"), namespace)
namespace["check"]()
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sys.version_info = (3, 9, 2, 'final', 0)", "Python 3.9 is too old, bnbenv needs 3.10 or newer"),
        ("sys.modules['ensurepip'] = None", "comes without venv or ensurepip: install python3-venv"),
        ("sys.modules['venv'] = None", "comes without venv or ensurepip"),
    ],
    ids=["old", "no-ensurepip", "no-venv"],
)
def test_what_is_missing_gets_one_line(change: str, words: str) -> None:
    program = ASK.format(change=change, file=str(BOOTSTRAP))
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1
    assert words in ran.stderr
    assert "uv run bnbenv create qlora" in ran.stderr


def test_a_fit_python_passes() -> None:
    program = ASK.format(change="", file=str(BOOTSTRAP))
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_no_syntax_that_old_pythons_lack() -> None:
    tree = ast.parse(BOOTSTRAP.read_text(encoding="utf-8"), feature_version=(3, 4))
    new = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Match)
    assert [node for node in ast.walk(tree) if isinstance(node, new)] == []


def test_without_words_it_explains_itself() -> None:
    ran = subprocess.run(
        [sys.executable, str(BOOTSTRAP)], capture_output=True, text=True, check=False, cwd=os.sep
    )
    assert ran.returncode == 2
    assert "python3 bootstrap.py create qlora" in ran.stdout
