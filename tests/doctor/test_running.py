"""Real processes with a library of an environment loaded, which is then replaced."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bnbenv.doctor.running import check_running
from bnbenv.env import transaction
from bnbenv.env.installed import read_installed
from support.sites import make_site, site_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="there is no /proc")

_HOLD = """
import mmap, sys
with open(sys.argv[1], "rb") as stream:
    held = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
print("ready", flush=True)
sys.stdin.readline()
"""


@contextmanager
def holding(file: Path, *words: str) -> Iterator[int]:
    """A Python process that has a file mapped, as the loader maps a library."""
    child = subprocess.Popen(
        [sys.executable, "-I", *words, "-c", _HOLD, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        yield child.pid
    finally:
        child.communicate("\n")


def _upgraded(file: Path) -> None:
    file.unlink()
    file.write_bytes(b"of another release")


def _set_aside(file: Path) -> None:
    """As pip does: rename the package's directory, then delete it."""
    aside = file.parent.with_name("~itsandbytes")
    file.parent.rename(aside)
    (aside / file.name).unlink()


def _repaired(file: Path) -> None:
    """As `repair` and `create --here` do."""
    prefix = file.parents[4]
    transaction.staging(prefix)
    with transaction.replacing(prefix, transaction.Swap(aside=frozenset({file}), place={})):
        pass


@pytest.mark.parametrize(
    ("replace", "told"),
    [
        (_upgraded, "the bitsandbytes"),
        (_set_aside, "the bitsandbytes"),
        (_repaired, "a package"),
    ],
    ids=["unlinked", "set-aside", "repaired"],
)
def test_a_process_that_holds_what_was_replaced(
    replace: Callable[[Path], None], told: str, tmp_path: Path
) -> None:
    environment = make_site(tmp_path / "env")
    library = site_of(environment) / "bitsandbytes" / "libbitsandbytes_cpu.so"
    installed = read_installed(environment)
    with holding(library) as pid:
        assert list(check_running(installed)) == []
        replace(library)
        [found] = check_running(installed)
        assert (found.code, found.severity) == ("stale-runtime", "warning")
        assert f"({pid}) still runs {told} from before" in found.summary
        assert f"process {pid} has `" in found.evidence[0]
    assert list(check_running(installed)) == []


def test_a_kernel_is_called_one(tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    library = site_of(environment) / "torch" / "_C.so"
    with holding(library, "-X", "ipykernel_launcher"):  # Python passes over options it does not know
        library.unlink()
        [found] = check_running(read_installed(environment))
    assert found.summary.startswith("a notebook's kernel")
    assert "torch" in found.summary


def test_a_process_of_another_environment_is_not_meant(tmp_path: Path) -> None:
    one, other = make_site(tmp_path / "env"), make_site(tmp_path / "env-2")
    library = site_of(other) / "torch" / "_C.so"
    with holding(library):
        library.unlink()
        assert list(check_running(read_installed(one))) == []
        assert len(list(check_running(read_installed(other)))) == 1


def test_a_daemon_that_holds_something_else_is_not_meant(tmp_path: Path) -> None:
    environment = make_site(tmp_path / "env")
    library = site_of(environment) / "apt_pkg.so"
    library.write_bytes(b"of apt")
    with holding(library):
        library.unlink()
        assert list(check_running(read_installed(environment))) == []
