"""The link check on stand-ins: an empty `torch`, and libraries compiled here that load, or do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from typing import TYPE_CHECKING

import pytest

from bnbenv.errors import EnvironmentProblem
from bnbenv.selftest.link_check import link_check

if TYPE_CHECKING:
    from pathlib import Path

    from bnbenv.selftest.verdict import Verdict

LIBRARY = "libbitsandbytes_cuda126.so"

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="compiles an ELF or Mach-O library"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
]


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A venv with a stand-in torch and a bitsandbytes whose directory is empty but for its metadata."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    [site] = (tmp_path / "env").glob("lib/python*/site-packages")
    for name, version in (("torch", "2.14.1+cu126"), ("bitsandbytes", "0.50.2")):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(f"__version__ = {version!r}\n")
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return tmp_path / "env"


def package(environment: Path) -> Path:
    [found] = environment.glob("lib/python*/site-packages/bitsandbytes")
    return found


def compiled(directory: Path, source: str, *flags: str) -> None:
    (directory / "source.c").write_text(source)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", str(directory / LIBRARY), str(directory / "source.c"), *flags],
        check=True,
    )


def checked(environment: Path, library: str | None = LIBRARY) -> Verdict:
    return link_check(environment / "bin" / "python", library=library, environ=dict(os.environ))


def test_a_library_that_loads_is_not_run_and_never_passed(environment: Path) -> None:
    compiled(package(environment), "int f(void) { return 1; }")
    verdict = checked(environment)
    assert (verdict.verdict, verdict.library) == ("not-run", LIBRARY)
    assert verdict.versions == {"torch": "2.14.1+cu126", "bitsandbytes": "0.50.2"}


def test_a_symbol_that_nobody_has(environment: Path) -> None:
    compiled(package(environment), "int absent(void); int f(void) { return absent(); }", "-Wl,-z,now")
    verdict = checked(environment)
    assert verdict.verdict == "failed"
    assert "absent" in verdict.notes[0]


@pytest.mark.parametrize("content", [None, b"", b"no library at all"], ids=["absent", "empty", "text"])
def test_a_file_that_is_no_library(environment: Path, content: bytes | None) -> None:
    if content is not None:
        (package(environment) / LIBRARY).write_bytes(content)
    verdict = checked(environment)
    assert verdict.verdict == "failed"
    assert LIBRARY in verdict.notes[0]


def test_a_library_that_kills_its_process(environment: Path) -> None:
    source = "#include <stdlib.h>\n__attribute__((constructor)) static void f(void) { abort(); }"
    compiled(package(environment), source)
    [device] = checked(environment).devices
    assert device.checks[0].state == "crashed"


def test_a_release_without_a_library_for_it(environment: Path) -> None:
    assert checked(environment, None).verdict == "failed"


def test_a_torch_that_does_not_import(environment: Path) -> None:
    [torch] = environment.glob("lib/python*/site-packages/torch/__init__.py")
    torch.write_text("raise ImportError('libcudart.so.12: cannot open shared object file')\n")
    verdict = checked(environment)
    assert verdict.verdict == "failed"
    assert "libcudart.so.12" in verdict.notes[0]


def test_no_interpreter(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem):
        link_check(tmp_path / "python", library=LIBRARY, environ={})
