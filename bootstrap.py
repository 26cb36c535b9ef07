#!/usr/bin/env python3
"""Install bnbenv into ./.venv of this checkout and run it; needs nothing but Python 3.10 with venv.

    python3 bootstrap.py create qlora     install, then run ``bnbenv create qlora``
    python3 bootstrap.py test             install with the test requirements, then run the tests

Nothing outside this directory is changed, so an externally managed Python (PEP 668) is no hindrance.
This file must be readable by the oldest Python that may meet it: it says there what is missing.
"""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(HERE, ".venv")
SCRIPTS = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin")
PYTHON = os.path.join(SCRIPTS, "python.exe" if os.name == "nt" else "python")
OLDEST = (3, 10)

# Runs in the new environment, where a TOML reader is at hand on every Python.
GROUP = """
import sys
from pathlib import Path
from bnbenv.toml import loads
groups = loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["dependency-groups"]
def wanted(name):
    for entry in groups[name]:
        if isinstance(entry, dict):
            yield from wanted(entry["include-group"])
        else:
            yield entry
print("\\n".join(wanted(sys.argv[2])))
"""


def stop(message):
    sys.stderr.write("bootstrap: %s\n" % message)
    sys.exit(1)


def check():
    if sys.version_info < OLDEST:
        stop(
            "Python %d.%d is too old, bnbenv needs 3.10 or newer: use a newer one, or uv: "
            "uv run bnbenv create qlora" % sys.version_info[:2]
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        stop(
            "this Python comes without venv or ensurepip: install python3-venv (Debian, Ubuntu), "
            "or use uv: uv run bnbenv create qlora"
        )


def make():
    """An environment with pip; one that is there and works is kept."""
    works = (
        os.path.exists(PYTHON)
        and subprocess.call(
            [PYTHON, "-c", "import pip, sys; sys.exit(sys.version_info < (3, 10))"], stderr=subprocess.DEVNULL
        )
        == 0
    )
    if works:
        return
    import venv

    try:
        venv.EnvBuilder(with_pip=True, clear=True, symlinks=os.name != "nt").create(VENV)
    except subprocess.CalledProcessError as error:
        stop(
            "venv cannot put pip into %s (exit %s); uv can: uv run bnbenv create qlora"
            % (VENV, error.returncode)
        )
    except OSError as error:
        stop("cannot make %s: %s" % (VENV, error))


def pip(*words):
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    code = subprocess.call(command + list(words))
    if code != 0:
        stop("pip failed (exit %d); its own words stand above" % code)


def requirements(group):
    answer = subprocess.check_output([PYTHON, "-c", GROUP, os.path.join(HERE, "pyproject.toml"), group])
    return answer.decode().split("\n")[:-1]


def replace(command):
    sys.stderr.flush()
    if os.name == "nt":  # exec would return to the prompt at once
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


def main(words):
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(__doc__)
        return 0 if words else 2
    check()
    make()
    if words[0] == "test":
        pip("--editable", HERE)
        pip(*requirements("test"))
        os.chdir(HERE)
        replace([PYTHON, "-m", "pytest", "-q", "-n", "auto"] + words[1:])
    pip(HERE)
    replace([os.path.join(SCRIPTS, "bnbenv.exe" if os.name == "nt" else "bnbenv")] + words)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
