"""Scripts are run as the system runs them, from places with hard names, before and after they are moved."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bnbenv.env.scripts import first_lines, pointed, start_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="commands there are programs")

PLACES = {
    "plain": "env",
    "blank": "my env",
    "apostrophe": "it's an env",
    "quotes": 'a "b" $c `d`',
    "letters": "Überraum",
    "long": "/".join(["l" * 60] * 3),
}
BODY = "import sys\nprint(sys.argv[1:], sys.flags.isolated)\n"


def at(tmp_path: Path, name: str) -> str:
    """An environment with nothing but an interpreter; its path."""
    directory = tmp_path / PLACES[name]
    (directory / "bin").mkdir(parents=True, exist_ok=True)
    if not (directory / "bin" / "python").exists():
        (directory / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    return str(directory)


def answer(script: Path, content: bytes) -> str:
    script.write_bytes(content)
    script.chmod(0o755)
    done = subprocess.run([script, "a b"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("options", ["", "-I"])
@pytest.mark.parametrize("new", PLACES)
@pytest.mark.parametrize("old", PLACES)
def test_a_script_runs_wherever_it_is_moved(tmp_path: Path, old: str, new: str, options: str) -> None:
    script = tmp_path / "script"
    for place in (old, new):
        at(tmp_path, place)
    before = (first_lines(f"{at(tmp_path, old)}/bin/python", options) + BODY).encode()
    after = pointed(before, at(tmp_path, old), at(tmp_path, new))
    assert answer(script, after) == f"['a b'] {int(options == '-I')}"
    assert after == (first_lines(f"{at(tmp_path, new)}/bin/python", options) + BODY).encode()
    start = start_of(script)
    assert start is not None
    assert (start.interpreter, start.options, start.runs) == (
        f"{at(tmp_path, new)}/bin/python",
        options,
        True,
    )


@pytest.mark.parametrize("name", ["plain", "blank", "long"])
def test_the_lines_that_pip_writes_are_read(tmp_path: Path, name: str) -> None:
    interpreter = f"{at(tmp_path, name)}/bin/python3.12"
    written = f'"{interpreter}"' if " " in interpreter else interpreter
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\n'''exec' {written} \"$0\" \"$@\"\n' '''\n{BODY}", encoding="utf-8")
    start = start_of(script)
    assert start is not None
    assert (start.interpreter, start.runs) == (interpreter, True)


@pytest.mark.parametrize("name", ["blank", "long"])
def test_a_line_that_no_system_can_start_is_known_and_mended(tmp_path: Path, name: str) -> None:
    place, script = at(tmp_path, name), tmp_path / "script"
    content = f"#!{place}/bin/python\n{BODY}".encode()
    script.write_bytes(content)
    start = start_of(script)
    assert start is not None
    assert (start.interpreter, start.runs) == (f"{place}/bin/python", False)
    assert answer(script, pointed(content, place, place)) == "['a b'] 0"


@pytest.mark.parametrize(
    "content", [b"\x7fELF", b"#!/usr/bin/env python3\n", b"#!/bin/sh\nexec python3\n", b""]
)
def test_what_names_no_python_has_no_start(tmp_path: Path, content: bytes) -> None:
    script = tmp_path / "script"
    script.write_bytes(content)
    assert start_of(script) is None
    assert pointed(content, "/old", "/new") == content


@pytest.mark.parametrize("new", PLACES)
@pytest.mark.parametrize("old", PLACES)
def test_a_shell_reads_the_new_place_however_the_old_one_was_quoted(
    tmp_path: Path, old: str, new: str
) -> None:
    was, now = at(tmp_path, old), at(tmp_path, new)
    single = "'" + was.replace("'", "'\"'\"'") + "/bin'"
    double = '"' + "".join(f"\\{it}" if it in '"$`' else it for it in was) + '/bin"'
    content = (
        f'one={shlex.quote(was)}/bin\ntwo={single}\nthree={double}\nprintf \'%s|\' "$one" "$two" "$three"\n'
    )
    script = tmp_path / "script"
    script.write_bytes(pointed(content.encode(), was, now))
    done = subprocess.run(["/bin/sh", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{now}/bin|" * 3


def test_a_longer_name_is_another_place() -> None:
    content = b"one=/a/env2\ntwo=/b/a/env\nthree=/a/env:/a/env/bin\n"
    assert pointed(content, "/a/env", "/new") == b"one=/a/env2\ntwo=/b/a/env\nthree=/new:/new/bin\n"


def test_an_archive_behind_the_first_line_stays_as_it_is() -> None:
    archive = b"PK\x03\x04\0\xff/a/env/x"
    assert pointed(b"#!/a/env/bin/python\n" + archive, "/a/env", "/b") == b"#!/b/bin/python\n" + archive
