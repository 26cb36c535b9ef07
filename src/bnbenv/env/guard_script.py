"""The pip and the uv of a guarded environment: hold what is locked, and say what to type instead.

A copy of this file stands in the environment and is started by `bin/pip` and `bin/uv`. It needs nothing but
the environment's own Python: an environment goes on working when bnbenv is upgraded or uninstalled.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Guard = dict[str, Any]

HERE = os.path.dirname(os.path.abspath(__file__))
PREFIX = os.path.dirname(os.path.dirname(HERE))

# Options of `pip install` and `uv pip install` that lead the packages to another place.
_ELSEWHERE = ("--target", "-t", "--prefix", "--root", "--user", "--python", "--system")
_PIP_COMMANDS = frozenset(
    "install uninstall download wheel lock list freeze show check config cache index inspect search hash "
    "debug help completion".split()
)
# Options whose value stands in a word of its own; what they are given is no requirement.
_WITH_VALUE = frozenset(
    "-r --requirement --requirements -c --constraint --constraints -b --build-constraint --build-constraints "
    "-t --target --prefix --root --platform --python-version --implementation --abi -i --index-url "
    "--extra-index-url -f --find-links --no-binary --only-binary --progress-bar --report --upgrade-strategy "
    "-C --config-settings --global-option --src --root-user-action --group --proxy --retries --timeout "
    "--exists-action --trusted-host --cert --client-cert --cache-dir --use-feature --use-deprecated --log "
    "--keyring-provider --python -p --index --default-index --index-strategy --link-mode --resolution "
    "--prerelease --overrides --override --excludes --extra --exclude-newer --exclude-newer-package "
    "--torch-backend -P --upgrade-package --reinstall-package --refresh-package --no-build-package "
    "--no-binary-package --color --directory --project --config-file --python-platform --editable -e "
    "--fork-strategy --uploaded-prior-to".split()
)
_REINSTALL = ("--force-reinstall", "--ignore-installed", "-I", "--reinstall", "--reinstall-package")
# pip says one of these where a constraint stopped it.
_HELD_BACK = re.compile(rb"ResolutionImpossible|constraint|No matching distribution")


def main(argv: list[str]) -> int:
    """Answer for `argv`: the tool's name, then its arguments."""
    with open(os.path.join(HERE, "guard.json"), encoding="utf-8") as stream:
        guard = json.load(stream)
    tool, arguments = argv[0], argv[1:]
    if tool == "real-pip":
        return _real_pip(arguments)
    return _pip(guard, arguments) if tool == "pip" else _uv(guard, arguments)


def _real_pip(arguments: list[str]) -> int:
    import runpy

    sys.argv[1:] = arguments
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
    return 0


# -- pip ----------------------------------------------------------------------------------------------------


def _pip(guard: Guard, arguments: list[str]) -> int:
    command = next((word for word in arguments if word in _PIP_COMMANDS), None)
    place = arguments.index(command) if command else len(arguments)
    before, rest = arguments[:place], arguments[place + 1 :]
    real = [sys.executable, os.path.abspath(__file__), "real-pip"]
    if command not in ("install", "uninstall") or _asks_for_help(rest) or _given(before, ("--python",)):
        return _run(real + arguments)
    if command == "uninstall":
        return _refuse_uninstall(guard, rest) or _checked(guard, _run(real + arguments))
    if _given(rest, _ELSEWHERE):
        # What is installed elsewhere is none of the guard's business; pip's own configuration file says
        # otherwise, and a variable is stronger than that.
        elsewhere = dict(os.environ)
        elsewhere.setdefault("PIP_CONSTRAINT", _url(os.path.join(HERE, "none.txt")))
        return _run(real + arguments, environ=elsewhere)
    refused = _refuse_install(guard, rest)
    if refused:
        return refused
    added = ["--constraint", _url(os.path.join(HERE, "constraints.txt"))]
    if guard["index"] and not _given(rest, ("--no-index", "--index-url", "-i")):
        added += ["--extra-index-url", guard["index"]]
    code, said = _run_and_listen([*real, *before, command, *added, *rest])
    if code and _HELD_BACK.search(said):
        _advise(guard, rest)
    return _checked(guard, code)


# -- uv -----------------------------------------------------------------------------------------------------


def _uv(guard: Guard, arguments: list[str]) -> int:
    uv = _find_uv(guard)
    if uv is None:
        _say("uv is not on PATH; `pip` is here, and `python -m pip install uv` would bring uv")
        return 127
    words = [word for word in arguments if not word.startswith("-")]
    if words[:1] == ["pip"] and "pip" in arguments:
        return _uv_pip(guard, uv, arguments)
    if words[:1] in (["sync"], ["add"], ["remove"]) and _project_is_here(arguments):
        _say(
            "`uv {}` would make this environment a project's own and take away what the project does not "
            "name".format(words[0])
        )
        _say("  leave out `--active` (and UV_PROJECT_ENVIRONMENT): uv then uses the project's .venv")
        return 1
    return _run([uv, *arguments])


def _uv_pip(guard: Guard, uv: str, arguments: list[str]) -> int:
    place = arguments.index("pip") + 1
    command = arguments[place] if place < len(arguments) else ""
    rest = arguments[place + 1 :]
    here = _uv_installs_here(arguments)
    if command not in ("install", "sync", "uninstall") or not here or _asks_for_help(rest):
        return _run([uv, *arguments])
    if command == "uninstall":
        return _refuse_uninstall(guard, rest) or _checked(guard, _run([uv, *arguments]))
    if command == "sync":
        if "--dry-run" in rest:
            return _run([uv, *arguments])
        _say("`uv pip sync` would take away whatever the file does not name, torch and bitsandbytes with it")
        _say("  to add what it names:  bnbenv install --requirements FILE --in " + _name(guard))
        return 1
    refused = _refuse_install(guard, rest)
    if refused:
        return refused
    added = ["--constraint", os.path.join(HERE, "constraints.txt")]
    # An option on the line puts uv's variable out of force, and the user's own constraints with it.
    for file in os.environ.get("UV_CONSTRAINT", "").split():
        added += ["--constraint", file]
    code = _run([uv, *arguments[: place + 1], *added, *rest])
    if code == 1:  # uv found no set of versions; 2 is any other failure
        _advise(guard, rest)
    return _checked(guard, code)


def _find_uv(guard: Guard) -> str | None:
    kept = os.path.join(HERE, "uv")  # of the package `uv`, where the environment has it
    if os.access(kept, os.X_OK):
        return kept
    own = os.path.join(PREFIX, "bin")
    rest = [
        part
        for part in os.environ.get("PATH", os.defpath).split(os.pathsep)
        if os.path.realpath(part or ".") != os.path.realpath(own)
    ]
    found = shutil.which("uv", path=os.pathsep.join(rest))
    if found is None and guard["uv"] and os.access(guard["uv"], os.X_OK):
        found = guard["uv"]
    return found


def _uv_installs_here(arguments: list[str]) -> bool:
    """Whether `uv pip` would work on this environment, by the order in which uv looks for one."""
    for number, word in enumerate(arguments):
        option, _, value = word.partition("=")
        if option in ("--python", "-p"):
            return _is_here(value or "".join(arguments[number + 1 : number + 2]))
        if word.startswith("-p") and not word.startswith("--"):
            return _is_here(word[2:])
        if option in ("--target", "-t", "--prefix", "--root", "--system"):
            return False
    if os.environ.get("UV_PYTHON"):
        return _is_here(os.environ["UV_PYTHON"])
    if os.environ.get("UV_SYSTEM_PYTHON", "").lower() in ("1", "true", "yes", "on"):
        return False
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if os.environ.get(variable):
            return _is_here(os.environ[variable])
    directory = os.getcwd()
    while True:
        if os.path.isfile(os.path.join(directory, ".venv", "pyvenv.cfg")):
            return _is_here(os.path.join(directory, ".venv"))
        if os.path.dirname(directory) == directory:
            return False
        directory = os.path.dirname(directory)


def _is_here(text: str) -> bool:
    """Whether a directory or an interpreter is of this environment; its `python` is a link to another."""
    if os.sep not in text and not os.path.isdir(text):
        text = shutil.which(text) or text
    path = os.path.abspath(os.path.expanduser(text))
    if not os.path.isdir(path):
        path = os.path.dirname(os.path.dirname(path))
    return os.path.realpath(path) == os.path.realpath(PREFIX)


def _project_is_here(arguments: list[str]) -> bool:
    if os.environ.get("UV_PROJECT_ENVIRONMENT"):
        return _is_here(os.environ["UV_PROJECT_ENVIRONMENT"])
    return "--active" in arguments and _is_here(os.environ.get("VIRTUAL_ENV", ""))


# -- what is refused, and what is said ----------------------------------------------------------------------


def _refuse_uninstall(guard: Guard, rest: list[str]) -> int:
    held = [name for name, _ in _requirements(rest) if name in guard["held"]]
    if not held:
        return 0
    _say("{} held: the environment `{}` rests on it".format(_listed(held), guard["environment"]))
    _say("  to have no such environment any more:  bnbenv remove " + _name(guard))
    return 1


def _refuse_install(guard: Guard, rest: list[str]) -> int:
    named = _requirements(rest)
    for name, text in named:
        if name in guard["kept_out"]:
            entry = guard["kept_out"][name]
            _say("{} would break this environment: {}".format(name, entry["why"]))
            if entry["instead"]:
                _say("  an environment of its own:  bnbenv create " + entry["instead"])
            _say(
                "  all the same:  bnbenv install {} --in {} --anyway".format(shlex.quote(text), _name(guard))
            )
            return 1
    held = [name for name, _ in named if name in guard["held"]]
    if held and _given(rest, _REINSTALL):
        _say("{} held; installing it again from an index may bring another build".format(_listed(held)))
        _say("  where something is broken:  bnbenv repair " + _name(guard))
        return 1
    return 0


def _advise(guard: Guard, rest: list[str]) -> None:
    """Name the command for what was wanted."""
    shown = ("torch", "bitsandbytes")
    held = ", ".join("{} {}".format(name, guard["held"][name]) for name in shown if name in guard["held"])
    _say("the environment `{}` holds {}".format(guard["environment"], held))
    named = _requirements(rest)
    changed = [text for name, text in named if name in guard["held"]]
    others = [text for name, text in named if name not in guard["held"]]
    if changed:
        _say(
            "  to change that, tested:      bnbenv upgrade {} --in {}".format(_quoted(changed), _name(guard))
        )
    if others or not named:
        what = _quoted(others) if others else "PACKAGE"
        _say(
            "  to add what fits, or be told what does not:  bnbenv install {} --in {}".format(
                what, _name(guard)
            )
        )
        own = " ".join("--with " + shlex.quote(text) for text in others) or "--with PACKAGE"
        _say("  an environment of its own:   bnbenv create {} --name NAME {}".format(guard["profile"], own))


def _checked(guard: Guard, code: int) -> int:
    """Tell at once if what is held has been changed after all."""
    for name, directory in sorted(guard["metadata"].items()):
        if not os.path.isfile(os.path.join(PREFIX, directory, "METADATA")):
            _say("{} is no longer as it was locked:  bnbenv repair {}".format(name, _name(guard)))
    return code


def _requirements(words: list[str]) -> list[tuple[str, str]]:
    """Name and text of each requirement on the line; files, addresses and directories have no name here."""
    found: list[tuple[str, str]] = []
    value = False
    for word in words:
        if value:
            value = False
        elif word.startswith("-"):
            value = word in _WITH_VALUE
        else:
            match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", word)
            name = re.sub(r"[-_.]+", "-", match.group()).lower() if match else ""
            if word.endswith(".whl") and "/" not in word.partition(".whl")[2]:
                name = re.sub(r"[-_.]+", "-", os.path.basename(word).split("-")[0]).lower()
            elif "/" in word.partition("@")[0] or "\\" in word:
                name = ""
            if name:
                found.append((name, word))
    return found


def _given(words: list[str], options: tuple[str, ...]) -> bool:
    for word in words:
        if word in options or word.partition("=")[0] in options:
            return True
        if any(len(it) == 2 and word.startswith(it) and not word.startswith("--") for it in options):
            return True
    return False


def _asks_for_help(words: list[str]) -> bool:
    return "-h" in words or "--help" in words


def _listed(names: list[str]) -> str:
    return ", ".join(names) + (" is" if len(names) == 1 else " are")


def _quoted(texts: list[str]) -> str:
    return " ".join(shlex.quote(text) for text in texts)


def _name(guard: Guard) -> str:
    return shlex.quote(guard["environment"])


def _url(path: str) -> str:
    # pip splits the files in a variable at blanks; an address has none.
    from urllib.request import pathname2url

    return "file://" + pathname2url(path)


def _say(text: str) -> None:
    sys.stderr.write("bnbenv: " + text + "\n")
    sys.stderr.flush()


# -- processes ----------------------------------------------------------------------------------------------


def _run(command: list[str], environ: dict[str, str] | None = None) -> int:
    child = subprocess.Popen(command, env=environ)
    return _wait(child)


def _run_and_listen(command: list[str]) -> tuple[int, bytes]:
    """Run; the exit code, and the last of what it said on stderr, which was passed on as it came."""
    child = subprocess.Popen(command, stderr=subprocess.PIPE)
    said = b""
    stream = child.stderr
    while stream is not None:
        try:
            chunk = os.read(stream.fileno(), 1 << 16)
        except KeyboardInterrupt:
            continue  # the child got it too, and ends as it sees fit
        if not chunk:
            break
        sys.stderr.buffer.write(chunk)
        sys.stderr.flush()
        said = (said + chunk)[-(1 << 20) :]
    return _wait(child), said


def _wait(child: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            continue
        return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
