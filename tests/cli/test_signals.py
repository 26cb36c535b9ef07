"""What stops bnbenv from outside is answered, and leaves no process behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
