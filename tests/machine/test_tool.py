from __future__ import annotations

import sys

import pytest

from bnbenv.machine.tool import ask

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


def test_both_streams_and_the_status_come_back() -> None:
    answer = ask(["/bin/sh", "-c", "echo a; echo b >&2; exit 9"], environ={}, timeout=60)
    assert (answer.status, answer.output, answer.errors, answer.timed_out) == (9, "a\n", "b\n", False)


def test_a_program_that_ignores_being_asked_to_end_is_given_up() -> None:
    answer = ask(
        ["/bin/sh", "-c", "trap '' TERM INT; while :; do :; done"], environ={"PATH": "/bin"}, timeout=0.2
    )
    assert (answer.status, answer.timed_out) == (None, True)


def test_a_program_that_cannot_be_reaped_is_left() -> None:
    # The background process keeps the pipes open after its parent is killed: to the reader it looks like a
    # process that a broken kernel module holds. It ends by itself.
    answer = ask(["/bin/sh", "-c", "sleep 4 & wait"], environ={"PATH": "/usr/bin:/bin"}, timeout=0.2)
    assert (answer.status, answer.timed_out) == (None, True)


def test_a_program_that_is_not_there_is_an_answer() -> None:
    answer = ask(["/nowhere/nvidia-smi"], environ={}, timeout=60)
    assert answer.status is None
    assert not answer.timed_out
    assert "/nowhere/nvidia-smi" in answer.errors


def test_output_that_is_no_text_is_kept_readable() -> None:
    answer = ask(["/bin/sh", "-c", r"printf 'a\377b'"], environ={}, timeout=60)
    assert answer.output == "a\N{REPLACEMENT CHARACTER}b"
