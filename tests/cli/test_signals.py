"""What stops bnbenv from outside is answered, and leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

BATCH = """
import sys
from bnbenv.cli.main import entry

sys.argv[1:] = ["diagnose", "--batch", "-", "--json"]
entry()
"""
# A command that waits in a thread for what it has started, as `lock` waits for uv.
WAITS = """
import os, subprocess, sys, types
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from bnbenv.cli import dispatch, signals

def run(args, ui):
    with ThreadPoolExecutor() as pool:
        quiet = subprocess.DEVNULL
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        child = subprocess.Popen(sleep, stdout=quiet, stderr=quiet)
        waiting = pool.submit(child.wait)
        try:
            print(child.pid, flush=True)
            waiting.result()
        except KeyboardInterrupt:
            if "twice" in sys.argv:  # as a terminal hangs up: amid what sees to the end
                os.kill(os.getpid(), signals.signal.SIGHUP)
                print("seen to", flush=True)
            raise

signals.listen()
command = types.SimpleNamespace(run=run)
os._exit(dispatch.run(Namespace(json=True, verbose=0, quiet=False, command="list"), command, []))
"""

# Stopped while a module is loaded that half of the standard library needs.
LOADING = """
import sys, types
from bnbenv.cli import signals

sys.modules["contextlib"] = types.ModuleType("contextlib")
signals.listen()
try:
    signals.signal.raise_signal(signals.signal.SIGTERM)
except signals.Stopped as stop:
    print(stop.number)
"""

# A uv on a file system that keeps it from ending: it hears what it is told, and goes on.
UV = """
import os, sys, types
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from bnbenv.cli import dispatch, signals
from bnbenv.install.uv import Uv

DEAF = '''
import os, pathlib, signal, sys, time
heard = lambda *_: pathlib.Path(sys.argv[1]).touch()
signal.signal(signal.SIGINT, heard)
signal.signal(signal.SIGTERM, heard)
print(os.getpid(), file=sys.stderr, flush=True)
time.sleep(600)
'''

def run(args, ui):
    uv = Uv(path=Path(sys.executable), version="1", found="PATH")
    tell = lambda line: print(line, flush=True)
    call = lambda: uv.run(["-c", DEAF, sys.argv[1]], environ=os.environ, report=tell)
    if "in a thread" in sys.argv:  # as `lock` runs it
        with ThreadPoolExecutor() as pool:
            pool.submit(call).result()
    call()

if "in another program" not in sys.argv:
    signals.listen()
command = types.SimpleNamespace(run=run)
os._exit(dispatch.run(Namespace(json=True, verbose=0, quiet=False, command="list"), command, []))
"""
# A command that tells its progress, in a terminal.
TALKS = """
import sys, time, types
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from bnbenv.cli import dispatch, main
from bnbenv.cli.outcome import Outcome

log, words = Path(sys.argv[1]), sys.argv[2:]
log.touch()

def talk(ui):
    for number in range(6000 if words in ([], ["--json"]) else 100):
        ui.progress(f"line {number}")
        time.sleep(0.01)

def run(args, ui):
    if "thread" in words:
        with ThreadPoolExecutor() as pool:
            pool.submit(talk, ui).result()
    else:
        talk(ui)
    log.write_text("done")
    return Outcome(text="done")

command = types.SimpleNamespace(run=run)
args = Namespace(json="--json" in words, verbose=0, quiet=False, command="list")
main._main = lambda words: dispatch.run(args, command, words)
main.entry()
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program, as a shell does or with a signal ignored; what is left of it is killed afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *words: str, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen[str]:
        def before() -> None:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

        process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,  # noqa: PLW1509 - no threads here
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write('{"text": "nothing of note"}\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["status"] == "ok"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_is_answered(
    number: signal.Signals, code: int, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(BATCH)
    ask(process)
    process.send_signal(number)
    answer = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == code
    assert answer["status"] == "error"
    assert [problem["code"] for problem in answer["problems"]] == ["interrupted"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_signal_decides_where_the_reader_was_stopped_too(
    number: signal.Signals, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(BATCH)
    ask(process)
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number


def test_a_signal_that_comes_amid_an_import_is_answered(start: Callable[..., subprocess.Popen[str]]) -> None:
    told, _ = start(LOADING).communicate(timeout=60)
    assert told == f"{signal.SIGTERM.value}\n"


def test_an_ignored_signal_stays_ignored(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(BATCH, ignored=(signal.SIGHUP,))
    ask(process)
    process.send_signal(signal.SIGHUP)
    ask(process)
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_what_was_started_is_ended_too(
    number: signal.Signals, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(WAITS)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not child.is_running()


def test_a_terminal_that_hangs_up_twice_is_answered_once(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(WAITS, "twice")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    seen_to, answer = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 129
    assert seen_to == "seen to"
    assert [problem["code"] for problem in json.loads(answer)["problems"]] == ["interrupted"]


@pytest.mark.parametrize("where", ["here", "in a thread", "in another program"])
def test_a_second_ctrl_c_ends_a_uv_that_does_not_listen(
    where: str, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    heard = tmp_path / "heard"
    process = start(UV, str(heard), where)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGINT)
    assert until(heard.exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not child.is_running()


@pytest.mark.parametrize("words", [(), ("--json",), ("thread",)], ids=" ".join)
@pytest.mark.parametrize("signalled", [True, False], ids=["leads its session", "is told later or never"])
def test_a_terminal_that_closes_hangs_up(tmp_path: Path, words: tuple[str, ...], *, signalled: bool) -> None:
    process, terminal = in_a_terminal(TALKS, str(tmp_path / "log"), *words, leads=signalled)
    os.close(terminal)
    assert process.wait(timeout=60) == 129
    assert (tmp_path / "log").read_text(encoding="utf-8") == ""


def test_a_terminal_that_closes_is_left_behind_where_that_is_ignored(tmp_path: Path) -> None:
    process, terminal = in_a_terminal(TALKS, str(tmp_path / "log"), "ends", leads=False, ignoring=True)
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "log").read_text(encoding="utf-8") == "done"


def in_a_terminal(
    program: str, *words: str, leads: bool, ignoring: bool = False
) -> tuple[subprocess.Popen[bytes], int]:
    """A program that has begun to speak in a terminal, and that terminal's other end."""
    import fcntl
    import pty
    import termios

    ours, its = pty.openpty()

    def before() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignoring else signal.SIG_DFL)
        if leads:
            fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=before,  # noqa: PLW1509 - no threads here
    )
    os.close(its)
    os.read(ours, 1)
    return process, ours


def until(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within a minute."""
    for _ in range(6000):
        if condition():
            return True
        time.sleep(0.01)
    return False
