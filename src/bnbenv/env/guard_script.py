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
from contextlib import redirect_stderr, redirect_stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Guard = dict[str, Any]

HERE = os.path.dirname(os.path.abspath(__file__))
PREFIX = os.path.dirname(os.path.dirname(HERE))

# Options of uv's whose value may stand in a word of its own: before the command, of `uv pip`, and of `uv run`.
_UV_VALUES = frozenset(
    "--cache-dir --color --allow-insecure-host --trusted-host --directory --project --config-file "
    "--preview-features --python-preference --python-fetch".split()
)
_UV_PIP_VALUES = _UV_VALUES | frozenset(
    "-r --requirement --requirements -e --editable -c --constraint --constraints --override --overrides "
    "--exclude --excludes -b --build-constraint --build-constraints --extra --group --index --default-index -i "
    "--index-url --extra-index-url -f --find-links --index-strategy --keyring-provider -P --upgrade-package "
    "--upgrade-group --resolution --prerelease --prerelease-package --fork-strategy --exclude-newer "
    "--exclude-newer-package --no-sources-package --no-editable-package --reinstall-package --link-mode -C "
    "--config-setting --config-settings --config-settings-package --no-build-isolation-package --no-binary "
    "--only-binary --refresh-package -p --python -t --target --prefix --python-version --python-platform "
    "--torch-backend --output-format --cert".split()
)
_UV_RUN_VALUES = _UV_VALUES | frozenset(
    "--extra --no-extra --group --no-group --only-group --no-editable-package --env-file -w --with "
    "--with-editable --with-requirements --package --python-platform --index --default-index -i --index-url "
    "--extra-index-url -f --find-links --index-strategy --keyring-provider -P --upgrade-package "
    "--upgrade-group --resolution --prerelease --prerelease-package --fork-strategy --exclude-newer "
    "--exclude-newer-package --no-sources-package --reinstall-package --link-mode -C --config-setting "
    "--config-settings --config-settings-package --no-build-isolation-package --no-build-package "
    "--no-binary-package --refresh-package -p --python".split()
)
_UV_VENV_VALUES = _UV_VALUES | frozenset(
    "--prompt --link-mode -p --python --index --default-index -i --index-url --extra-index-url -f --find-links "
    "--index-strategy --keyring-provider --exclude-newer --exclude-newer-package --refresh-package".split()
)
# Commands of uv's that bring an environment to what a project names, and the options under which they do not;
# some of these have a variable, such as UV_NO_SYNC.
_SYNCING = {
    "run": ("--no-sync", "--no-project", "--isolated"),
    "check": ("--no-sync", "--no-project", "--isolated"),
    "sync": ("--dry-run", "--check"),
    "add": ("--no-sync", "--frozen"),
    "remove": ("--no-sync", "--frozen"),
    "version": ("--no-sync", "--frozen", "--dry-run"),
}
_HAS_VARIABLE = frozenset({"--no-sync", "--no-project", "--isolated", "--frozen"})
# pip says one of these where a constraint stopped it.
_HELD_BACK = re.compile(rb"ResolutionImpossible|constraint|No matching distribution")


def main(argv: list[str]) -> int:
    """Answer for `argv`: the tool's name, then its arguments."""
    with open(os.path.join(HERE, "guard.json"), encoding="utf-8") as stream:
        guard = json.load(stream)
    guard["environment"] = _called(guard["environment"])
    tool, arguments = argv[0], argv[1:]
    if tool == "real-pip":
        return _real_pip(arguments)
    return _pip(guard, arguments) if tool == "pip" else _uv(guard, arguments)


def _called(environment: str) -> str:
    """How bnbenv is told which environment this is: by its name, or by where it was moved to."""
    moved = os.path.isabs(environment) and not os.path.exists(environment)
    return os.path.dirname(os.path.dirname(HERE)) if moved else environment


def _real_pip(arguments: list[str]) -> int:
    import runpy

    sys.argv[1:] = arguments
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
    return 0


# -- pip ----------------------------------------------------------------------------------------------------


def _pip(guard: Guard, arguments: list[str]) -> int:
    real = [sys.executable, os.path.abspath(__file__), "real-pip"]
    read = _as_pip_reads(arguments)
    if read is None:
        return _run(real + arguments)
    place, options, words = read
    named = _named(words)
    if arguments[place] == "uninstall":
        refused = _refuse_uninstall(guard, named, options.requirements, os.getcwd())
        return refused or _checked(guard, _run(real + arguments))
    if _leads_elsewhere(options):
        # What is installed elsewhere is none of the guard's business; pip's own configuration file says
        # otherwise, and a variable is stronger than that.
        elsewhere = dict(os.environ)
        elsewhere.setdefault("PIP_CONSTRAINT", _url(os.path.join(HERE, "none.txt")))
        return _run(real + arguments, environ=elsewhere)
    every = named + _in_files(options.requirements, os.getcwd(), sure=True)
    again = every if options.force_reinstall or options.ignore_installed else []
    refused = _refuse_install(guard, every, again)
    if refused:
        return refused
    before, rest = arguments[:place], arguments[place + 1 :]
    added = ["--constraint", _url(os.path.join(HERE, "constraints.txt"))]
    if guard["index"] and not _given(rest, ("--no-index", "--index-url", "-i")):
        added += ["--extra-index-url", guard["index"]]
    code, said = _run_and_listen([*real, *before, "install", *added, *rest])
    if code and _HELD_BACK.search(said):
        _advise(guard, named)
        if options.prefix_path or options.root_path:
            _say("  for another place alone, with what stands here left alone:  --ignore-installed")
    return _checked(guard, code)


def _as_pip_reads(arguments: list[str]) -> tuple[int, Any, list[str]] | None:
    """Place, options and words of an `install` or `uninstall` for this environment; ``None`` for all else.

    pip's own parser reads them: clusters such as `-UI`, shortened names, variables and configuration files
    count. What it refuses, or answers with a help text, is left to pip itself.
    """
    try:
        with open(os.devnull, "w") as unheard, redirect_stdout(unheard), redirect_stderr(unheard):
            from pip._internal.cli.main_parser import create_main_parser
            from pip._internal.commands import create_command

            general, rest = create_main_parser().parse_args(list(arguments))
            if rest[:1] not in (["install"], ["uninstall"]):
                return None
            if general.python and not _is_here(general.python, os.getcwd()):
                return None
            place = len(arguments) - len(rest)
            command = create_command(rest[0], isolated=general.isolated_mode)
            options, words = command.parse_args([*arguments[:place], *rest[1:]])
    except (ImportError, SystemExit):
        return None
    return place, options, words


def _leads_elsewhere(options: Any) -> bool:
    """Whether `pip install` leaves this environment alone.

    Under `--prefix` and `--root` it takes away what stands here of the same name, unless told to ignore it.
    """
    if options.target_dir:
        return not _is_inside(options.target_dir, os.getcwd())
    place = options.prefix_path or options.root_path
    if place:
        return options.ignore_installed and not _is_inside(PREFIX if place == os.sep else place, os.getcwd())
    return bool(options.use_user_site)


# -- uv -----------------------------------------------------------------------------------------------------


def _uv(guard: Guard, arguments: list[str]) -> int:
    uv = _find_uv(guard)
    if uv is None:
        _say("uv is not on PATH; `pip` is here, and `python -m pip install uv` would bring uv")
        return 127
    place = _next_word(arguments, 0, _UV_VALUES)
    command = "".join(arguments[place : place + 1])
    if command == "pip":
        return _uv_pip(guard, uv, arguments, place)
    if command in _SYNCING and _syncs_here(arguments, place):
        _say(
            "`uv {}` would make this environment a project's own and take away what the project does not "
            "name".format(command)
        )
        if command == "run":
            _say("  to run in it as it is:  uv run --no-sync …")
        _say(
            "  for one of its own:  leave out `--active`, or set UV_PROJECT_ENVIRONMENT to another directory"
        )
        return 1
    if command == "venv" and _makes_here(arguments, place):
        _say("`uv venv` would put an empty environment in the place of this one")
        _say("  to have it built anew:               bnbenv repair " + _name(guard))
        _say("  to have no such environment any more:  bnbenv remove " + _name(guard))
        return 1
    return _run([uv, *arguments])


def _uv_pip(guard: Guard, uv: str, arguments: list[str], pip: int) -> int:
    place = _next_word(arguments, pip + 1, _UV_VALUES)
    command = "".join(arguments[place : place + 1])
    rest = arguments[place + 1 :]
    options, words = _read([*arguments[:pip], *arguments[pip + 1 : place], *rest], _UV_PIP_VALUES)
    given = {option for option, _ in options}
    directory = _directory(options)
    here = _uv_installs_here(options, directory)
    if command not in ("install", "sync", "uninstall") or not here or given & {"-h", "--help"}:
        return _run([uv, *arguments])
    named = _named(words)
    files = _values(options, "-r", "--requirement", "--requirements")
    if command == "uninstall":
        refused = _refuse_uninstall(guard, named, files, directory)
        return refused or _checked(guard, _run([uv, *arguments]))
    if command == "sync":
        if "--dry-run" in given:
            return _run([uv, *arguments])
        _say("`uv pip sync` would take away whatever the file does not name, torch and bitsandbytes with it")
        _say("  to add what it names:  bnbenv install --requirements FILE --in " + _name(guard))
        return 1
    every = named + _in_files(files, directory, sure=True)
    again = every if given & {"--reinstall", "--force-reinstall"} else []
    refused = _refuse_install(guard, every, again + _named(_values(options, "--reinstall-package")))
    if refused:
        return refused
    added = ["--constraint", os.path.join(HERE, "constraints.txt")]
    # An option on the line puts uv's variable out of force, and the user's own constraints with it.
    for file in os.environ.get("UV_CONSTRAINT", "").split():
        added += ["--constraint", file]
    code = _run([uv, *arguments[: place + 1], *added, *rest])
    if code == 1:  # uv found no set of versions; 2 is any other failure
        _advise(guard, named)
    return _checked(guard, code)


def _next_word(words: list[str], place: int, with_value: frozenset[str]) -> int:
    """Where the first word from `place` on stands that is neither an option nor the value of one."""
    while place < len(words) and words[place].startswith("-") and len(words[place]) > 1:
        word = words[place]
        place += 1
        if word == "--":
            break
        _, others = _read([word, ""], with_value)
        place += 0 if others else 1
    return place


def _read(words: list[str], with_value: frozenset[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options on a line of uv's, each with its value, and the other words."""
    options: list[tuple[str, str]] = []
    others: list[str] = []
    line = iter(words)
    for word in line:
        if word == "--":
            others += line
        elif word.startswith("--"):
            option, equals, value = word.partition("=")
            options.append((option, next(line, "") if option in with_value and not equals else value))
        elif word.startswith("-") and len(word) > 1:
            letters = word[1:]
            while letters:
                option, letters, value = "-" + letters[0], letters[1:], ""
                if option in with_value:
                    value, letters = letters.lstrip("=") or next(line, ""), ""
                options.append((option, value))
        else:
            others.append(word)
    return options, others


def _values(options: list[tuple[str, str]], *names: str) -> list[str]:
    return [value for option, value in options if option in names]


def _directory(options: list[tuple[str, str]]) -> str:
    """Where uv goes before anything else."""
    asked = _values(options, "--directory") or [os.environ.get("UV_WORKING_DIR", "")]
    return os.path.abspath(asked[-1])


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


def _uv_installs_here(options: list[tuple[str, str]], directory: str) -> bool:
    """Whether `uv pip` would work on this environment, by the order in which uv looks for one."""
    places = _values(options, "-t", "--target", "--prefix")
    if places:
        return _is_inside(places[-1], directory)
    asked = _values(options, "-p", "--python") or [os.environ.get("UV_PYTHON", "")]
    if asked[-1]:
        path = _found(asked[-1], directory)
        if path is not None:
            return _is_here(path, directory)
        # A version: the active environment serves it if it is of that version.
        version = re.fullmatch(r"(?:c?python|cp)?-?@?(\d+(?:\.\d+)*)", asked[-1])
        if version and not "{}.{}.{}.".format(*sys.version_info).startswith(version.group(1) + "."):
            return False
    elif _values(options, "--system") or _is_on("UV_SYSTEM_PYTHON"):
        return False
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if os.environ.get(variable):
            return _is_here(os.environ[variable], directory)
    for parent in _upwards(directory):
        if os.path.isfile(os.path.join(parent, ".venv", "pyvenv.cfg")):
            return _is_here(os.path.join(parent, ".venv"), directory)
    return False


def _syncs_here(arguments: list[str], place: int) -> bool:
    """Whether uv would bring this very environment to what a project, or a script, names."""
    command, end = arguments[place], len(arguments)
    values = _UV_RUN_VALUES | {"--script"}
    if command == "run":  # what stands behind the program's name is the program's
        values = _UV_RUN_VALUES
        end = _next_word(arguments, place + 1, values)
    options, others = _read([*arguments[:place], *arguments[place + 1 : end]], values)
    given = {option for option, _ in options}
    if given & {"-h", "--help"} or (command == "version" and not others and "--bump" not in given):
        return False
    for option in _SYNCING[command]:
        variable = "UV" + option[1:].replace("-", "_").upper()
        if option in given or (option in _HAS_VARIABLE and _is_on(variable)):
            return False
    directory = _directory(options)
    active = os.environ.get("VIRTUAL_ENV", "") if "--active" in given else ""
    script = _values(options, "--script")[-1:] if command != "run" else arguments[end : end + 1]
    if script and _has_metadata(os.path.join(directory, script[0])):
        return bool(active) and _is_here(active, directory)
    roots = _project_roots(options, directory)
    if active:
        return bool(roots) and _is_here(active, directory)
    environment = os.environ.get("UV_PROJECT_ENVIRONMENT") or ".venv"
    return any(_is_here(environment, root) for root in roots)


def _makes_here(arguments: list[str], place: int) -> bool:
    """Whether `uv venv` would make its environment where this one stands."""
    options, words = _read([*arguments[:place], *arguments[place + 1 :]], _UV_VENV_VALUES)
    given = {option for option, _ in options}
    if given & {"-h", "--help"}:
        return False
    directory = _directory(options)
    if words:
        return _is_here(words[0], directory)
    own = [] if "--no-project" in given or _is_on("UV_NO_PROJECT") else _project_roots(options, directory)
    if not own:
        return _is_here(".venv", directory)
    return any(_is_here(os.environ.get("UV_PROJECT_ENVIRONMENT") or ".venv", root) for root in own)


def _project_roots(options: list[tuple[str, str]], directory: str) -> list[str]:
    """The project's directory and those of workspaces around it; none where there is no project."""
    asked = _values(options, "--project") or [os.environ.get("UV_PROJECT", "")]
    roots: list[str] = []
    for parent in _upwards(os.path.join(directory, asked[-1])):
        text = _text(os.path.join(parent, "pyproject.toml"))
        if text is None:
            continue
        workspace = re.search(r"^\s*\[\s*tool\.uv\.workspace\s*\]", text, re.MULTILINE)
        if workspace or (not roots and re.search(r"^\s*\[?\s*project\b", text, re.MULTILINE)):
            roots.append(parent)
        elif not roots:
            return []
    return roots


def _has_metadata(file: str) -> bool:
    """Whether a script says itself what it needs, and uv gives it an environment of its own for that."""
    return bool(re.search(r"^# /// script\s*$", _text(file) or "", re.MULTILINE))


# -- places -------------------------------------------------------------------------------------------------


def _found(text: str, directory: str) -> str | None:
    """The directory or the interpreter that is meant; ``None`` where there is none."""
    path = os.path.join(directory, os.path.expanduser(text))
    if os.sep in text or os.path.isdir(path):
        return path
    return shutil.which(text)


def _is_here(text: str, directory: str) -> bool:
    """Whether a directory or an interpreter is of this environment; its `python` is a link to another."""
    path = os.path.abspath(_found(text, directory) or os.path.join(directory, text))
    if not os.path.isdir(path):
        path = os.path.dirname(os.path.dirname(path))
    return os.path.realpath(path) == os.path.realpath(PREFIX)


def _is_inside(text: str, directory: str) -> bool:
    path, prefix = os.path.realpath(os.path.join(directory, text)), os.path.realpath(PREFIX)
    return path == prefix or path.startswith(prefix + os.sep)


def _upwards(directory: str) -> list[str]:
    """A directory and its parents."""
    found = [os.path.abspath(directory)]
    while os.path.dirname(found[-1]) != found[-1]:
        found.append(os.path.dirname(found[-1]))
    return found


def _text(file: str) -> str | None:
    """What a file holds; ``None`` where it is none, such as a pipe, which can be read but once."""
    if not os.path.isfile(file):
        return None
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return None


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "t", "yes", "y", "on")


# -- what is refused, and what is said ----------------------------------------------------------------------


def _refuse_uninstall(guard: Guard, named: list[tuple[str, str]], files: list[str], directory: str) -> int:
    held = [name for name, _ in named + _in_files(files, directory, sure=False) if name in guard["held"]]
    if held:
        _say("{} held: the environment `{}` rests on it".format(_listed(held), guard["environment"]))
        _say("  to have no such environment any more:  bnbenv remove " + _name(guard))
        return 1
    for file in files:
        path = os.path.join(directory, file)
        if file == "-" or "://" in file or (os.path.exists(path) and not os.path.isfile(path)):
            _say("what `{}` names cannot be looked at beforehand: give a file".format(file))
            return 1
    return 0


def _refuse_install(guard: Guard, named: list[tuple[str, str]], again: list[tuple[str, str]]) -> int:
    """Refuse what is kept out, and to install what is held a second time."""
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
    held = [name for name, _ in again if name in guard["held"]]
    if held:
        _say("{} held; installing it again from an index may bring another build".format(_listed(held)))
        _say("  where something is broken:  bnbenv repair " + _name(guard))
        return 1
    return 0


def _advise(guard: Guard, named: list[tuple[str, str]]) -> None:
    """Name the command for what was wanted."""
    shown = ("torch", "bitsandbytes")
    held = ", ".join("{} {}".format(name, guard["held"][name]) for name in shown if name in guard["held"])
    _say("the environment `{}` holds {}".format(guard["environment"], held))
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


def _named(words: list[str]) -> list[tuple[str, str]]:
    """Name and text of each requirement; addresses and directories have no name here."""
    found: list[tuple[str, str]] = []
    for word in words:
        match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", word)
        name = re.sub(r"[-_.]+", "-", match.group()).lower() if match else ""
        if word.endswith(".whl") and "/" not in word.partition(".whl")[2]:
            name = re.sub(r"[-_.]+", "-", os.path.basename(word).split("-")[0]).lower()
        elif "/" in word.partition("@")[0] or "\\" in word:
            name = ""
        if name:
            found.append((name, word))
    return found


def _in_files(files: list[str], directory: str, *, sure: bool) -> list[tuple[str, str]]:
    """The same of requirement files and of those that they name; of a `.toml`, whatever its texts may name.

    Where it must be sure that they are wanted, a `.toml` and what stands under a marker are passed over.
    """
    found: list[tuple[str, str]] = []
    waiting = [os.path.abspath(os.path.join(directory, file)) for file in files]
    for file in waiting:
        text = _text(file) or ""
        if file.endswith(".toml"):
            found += [] if sure else _named(re.findall(r"[\"']([A-Za-z0-9][^\"'\s;]*)", text))
            continue
        for line in text.replace("\\\n", "").splitlines():
            wanted = re.sub(r"(^|\s)(#|--hash).*", "", line).strip()
            nested = re.match(r"(?:-r|--requirement)[\s=]*(.+)", wanted)
            if nested:
                path = os.path.abspath(os.path.join(os.path.dirname(file), nested.group(1).strip("\"'")))
                waiting += [path] if path not in waiting else []
            elif not (sure and ";" in wanted):
                found += _named([wanted])
    return found


def _given(words: list[str], options: tuple[str, ...]) -> bool:
    for word in words:
        if word in options or word.partition("=")[0] in options:
            return True
        if any(len(it) == 2 and word.startswith(it) and not word.startswith("--") for it in options):
            return True
    return False


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
    # The caller's descriptors are passed on, here and below: `-r <(…)` is the name of one.
    child = subprocess.Popen(command, env=environ, close_fds=False)
    return _wait(child)


def _run_and_listen(command: list[str]) -> tuple[int, bytes]:
    """Run; the exit code, and the last of what it said on stderr, which was passed on as it came."""
    child = subprocess.Popen(command, stderr=subprocess.PIPE, close_fds=False)
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
