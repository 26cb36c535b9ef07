from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest

from bnbenv.env.additions import _is_inside, conflicts, copy_distribution, copy_file, find_additions
from bnbenv.env.guard import Guard, stand
from bnbenv.env.installed import Installed, read_installed
from bnbenv.env.scripts import first_lines

LOCKED = {"bitsandbytes": "0.50.2", "torch": "2.13.0"}


def put(
    site: Path,
    name: str,
    version: str,
    *,
    files: tuple[str, ...] = (),
    url: object = None,
    requires: tuple[str, ...] = (),
) -> None:
    """An installed package as an installer leaves it, with the rows that RECORD has without hashes."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Name: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {text}\n" for text in requires)
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    if url is not None:
        (info / "direct_url.json").write_text(json.dumps(url), encoding="utf-8")
    rows = [*files, f"{info.name}/METADATA", f"{info.name}/RECORD"]
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(file, encoding="utf-8")
    (info / "RECORD").write_text("".join(f"{row},,\n" for row in rows), encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    prefix = tmp_path / "env"
    site = prefix / "lib" / "python3.12" / "site-packages"
    put(site, "bitsandbytes", "0.50.2", files=("bitsandbytes/__init__.py", "bitsandbytes/libx.so"))
    put(site, "torch", "2.13.0", files=("torch/__init__.py",))
    (prefix / "bin").mkdir()
    for name in ("python", "python3.12", "activate", "activate.fish"):
        (prefix / "bin" / name).write_text("", encoding="utf-8")
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\n", encoding="utf-8")
    (prefix / ".bnbenv").mkdir()
    (prefix / ".bnbenv" / "lock.toml").write_text("", encoding="utf-8")
    return site


def seen(site: Path) -> Installed:
    return read_installed(site.parents[2])


def test_an_untouched_environment_has_no_additions(site: Path) -> None:
    found = find_additions(seen(site), LOCKED)
    assert (found.packages, found.files, found.left) == ((), (), ())


def test_the_guard_is_no_addition(site: Path) -> None:
    prefix = site.parents[2]
    (prefix / "bin" / "pip3").write_text("", encoding="utf-8")
    stand(prefix, Guard(environment="lab", profile="qlora", held={}), seen(site))
    assert (prefix / "pip.conf").exists() or (prefix / "pip.ini").exists()
    assert find_additions(seen(site), LOCKED).files == ()


def test_packages_are_asked_for_as_they_came(site: Path, tmp_path: Path) -> None:
    put(site, "einops", "0.8.1")
    put(site, "mine", "1.0", url={"url": (tmp_path / "my code").as_uri(), "dir_info": {"editable": True}})
    put(site, "wheel-of-url", "2.0", url={"url": "https://example.org/w-2.0.whl", "archive_info": {}})
    vcs = {"vcs": "git", "commit_id": "abc"}
    put(site, "from-git", "3.0", url={"url": "https://example.org/r", "vcs_info": vcs, "subdirectory": "d"})
    asked = {
        it.distribution.name: (it.requirement, it.editable)
        for it in find_additions(seen(site), LOCKED).packages
    }
    assert asked == {
        "einops": ("einops==0.8.1", False),
        "mine": (str(tmp_path / "my code"), True),
        "wheel-of-url": ("wheel-of-url @ https://example.org/w-2.0.whl", False),
        "from-git": ("from-git @ git+https://example.org/r@abc#subdirectory=d", False),
    }


def test_what_came_with_another_torch_and_other_versions_are_left_and_told(site: Path) -> None:
    put(site, "nvidia-cublas", "13.0")
    put(site, "peft", "0.20.0")
    put(site, "certifi", "2024.08.30")
    left = find_additions(seen(site), {**LOCKED, "peft": "0.21.2", "certifi": "2024.8.30"}).left
    assert left == (
        "nvidia-cublas 13.0: it belongs to another build of torch",
        "peft 0.20.0: the lock has 0.21.2",
    )


def test_files_without_a_package_stay_but_code_among_a_locked_packages_does_not(site: Path) -> None:
    for name in ("notes.txt", "my_module.py", "bitsandbytes/notes.txt", "bitsandbytes/libstale.so"):
        (site / name).write_text("x", encoding="utf-8")
    (site / "__pycache__").mkdir()
    (site / "__pycache__" / "my_module.cpython-312.pyc").write_text("x", encoding="utf-8")
    data = site.parents[2] / "share" / "data.bin"
    data.parent.mkdir()
    data.write_text("x", encoding="utf-8")
    found = find_additions(seen(site), LOCKED)
    below = Path("lib/python3.12/site-packages")
    assert set(found.files) == {
        Path("share/data.bin"),
        below / "notes.txt",
        below / "my_module.py",
        below / "bitsandbytes/notes.txt",
    }
    assert found.left == (
        f"{below}/bitsandbytes/libstale.so: code of no package, among the files of a locked one",
    )


def test_damage_of_a_locked_package_is_no_addition(site: Path) -> None:
    (site / "bitsandbytes-0.50.2.dist-info" / "RECORD").unlink()
    found = find_additions(seen(site), LOCKED)
    assert (found.packages, found.files) == ((), ())


def test_a_package_is_copied_with_its_record_and_its_scripts_point_at_the_new_place(
    site: Path, tmp_path: Path
) -> None:
    put(site, "einops", "0.8.1", files=("einops/__init__.py", "../../../bin/tool"))
    old, new = site.parents[2], tmp_path / "new"
    (old / "bin" / "tool").write_text(f"#!{old}/bin/python\nprint()\n", encoding="utf-8")
    found = seen(site).find("einops")
    assert found is not None
    copy_distribution(found, old, to=new)
    assert (new / "lib/python3.12/site-packages/einops/__init__.py").is_file()
    assert (new / "lib/python3.12/site-packages/einops-0.8.1.dist-info/RECORD").is_file()
    assert (new / "bin/tool").read_text(encoding="utf-8") == f"#!{new}/bin/python\nprint()\n"
    assert (old / "bin/tool").read_text(encoding="utf-8") == f"#!{old}/bin/python\nprint()\n"


@pytest.mark.parametrize(
    "head",
    ["#!{0}/bin/python\n", "#!/bin/sh\n'''exec' '{0}/bin/python' \"$0\" \"$@\"\n' '''\n"],
    ids=["plain", "through a shell"],
)
def test_a_scripts_first_lines_alone_point_at_the_new_place(tmp_path: Path, head: str) -> None:
    rest = f"import os\nDATA = '{tmp_path}/old/share'\n"
    script = tmp_path / "old" / "bin" / "tool"
    script.parent.mkdir(parents=True)
    script.write_text(head.format(tmp_path / "old") + rest, encoding="utf-8")
    copy_file(script, tmp_path / "old", to=tmp_path / "new")
    text = (tmp_path / "new" / "bin" / "tool").read_text(encoding="utf-8")
    assert text == first_lines(f"{tmp_path}/new/bin/python") + rest


@pytest.mark.parametrize(
    ("path", "inside"), [("C:\\Env\\Lib\\x.py", True), ("C:\\env", False), ("C:\\env2\\x.py", False)]
)
def test_on_windows_too_a_path_is_seen_to_stand_inside(path: str, inside: bool) -> None:
    assert _is_inside(PureWindowsPath(path), PureWindowsPath("C:\\env")) is inside


def test_a_copied_script_starts_from_a_place_with_a_blank(site: Path, tmp_path: Path) -> None:
    old, new = site.parents[2], tmp_path / "my new"
    (new / "bin").mkdir(parents=True)
    (new / "bin" / "python").symlink_to(sys.executable)
    tool = old / "bin" / "tool"
    tool.write_text(f"#!{old}/bin/python\nprint('fine')\n", encoding="utf-8")
    tool.chmod(0o755)
    copy_file(tool, old, to=new)
    assert subprocess.check_output([new / "bin" / "tool"], text=True) == "fine\n"


def test_a_file_that_is_there_already_is_not_overwritten(site: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "pyvenv.cfg").write_text("new", encoding="utf-8")
    copy_file(site.parents[2] / "pyvenv.cfg", site.parents[2], to=tmp_path / "new")
    assert (tmp_path / "new" / "pyvenv.cfg").read_text(encoding="utf-8") == "new"


def test_what_an_addition_asks_for_and_does_not_find_is_told(site: Path) -> None:
    put(site, "einops", "0.8.1", requires=("torch<2", "gone", "other; extra == 'x'"))
    assert conflicts(seen(site), ["einops"]) == (
        "einops 0.8.1 needs torch<2, and 2.13.0 is there",
        "einops 0.8.1 needs gone, which is not there",
    )


@pytest.mark.parametrize(("python", "told"), [("3.10.4", True), ("3.13.1", False)])
def test_what_is_asked_for_is_asked_of_the_environments_python(site: Path, python: str, told: bool) -> None:
    prefix = site.parents[2]
    (prefix / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion_info = {python}\n", encoding="utf-8")
    put(site, "anyio", "4.9", requires=("exceptiongroup; python_version < '3.11'",))
    lines = ("anyio 4.9 needs exceptiongroup, which is not there",) if told else ()
    assert conflicts(seen(site), ["anyio"]) == lines
