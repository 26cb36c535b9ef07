from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bnbenv.env import transaction
from bnbenv.env.transaction import Swap, heal, is_half_done, replacing, staging
from bnbenv.errors import UPGRADE, BnbenvError, EnvironmentProblem


def grown(prefix: Path) -> dict[str, str]:
    """Every file below `prefix` but the work directory's, by content."""
    return {
        str(path.relative_to(prefix)): path.read_text(encoding="utf-8")
        for path in sorted(prefix.rglob("*"))
        if path.is_file() and transaction.WORK not in path.parts
    }


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    site = tmp_path / "env" / "site"
    for name, text in {
        "old/__init__.py": "old",
        "old/__pycache__/__init__.cpython-311.pyc": "compiled",
        "old/only_old.py": "only",
        "old/mine.txt": "the user's",
        "kept.py": "kept",
    }.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "env"


def a_swap(prefix: Path) -> Swap:
    """Replace `old/__init__.py`, drop `old/only_old.py`, bring `new/inner/it.py`."""
    staged = staging(prefix)
    for name in ("old/__init__.py", "new/inner/it.py"):
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_text("new", encoding="utf-8")
    site = prefix / "site"
    return Swap(
        aside=frozenset({site / "old" / "__init__.py", site / "old" / "only_old.py"}),
        place={staged / name: site / name for name in ("old/__init__.py", "new/inner/it.py")},
    )


def test_a_change_brings_the_new_and_leaves_the_rest(prefix: Path) -> None:
    with replacing(prefix, a_swap(prefix)):
        pass
    assert grown(prefix) == {
        "site/old/__init__.py": "new",
        "site/new/inner/it.py": "new",
        "site/old/mine.txt": "the user's",
        "site/kept.py": "kept",
    }
    assert not (prefix / transaction.WORK).exists()


def test_a_failure_in_the_block_leaves_everything_as_it_was(prefix: Path) -> None:
    before = grown(prefix)
    with pytest.raises(ZeroDivisionError), replacing(prefix, a_swap(prefix)):
        (prefix / "site" / "new" / "inner" / "__pycache__").mkdir()
        (prefix / "site" / "new" / "inner" / "__pycache__" / "it.cpython-311.pyc").write_text(
            "compiled meanwhile"
        )
        raise ZeroDivisionError
    assert grown(prefix) == before
    assert not (prefix / "site" / "new").exists()
    assert not (prefix / transaction.WORK).exists()


def test_a_failure_between_two_renames_is_undone(prefix: Path) -> None:
    before = grown(prefix)
    swap = a_swap(prefix)
    next(iter(swap.place)).unlink()  # what is staged has gone: the second half cannot be done
    with pytest.raises(BnbenvError), replacing(prefix, swap):
        pytest.fail("the block must not run")
    assert grown(prefix) == before


def test_an_emptied_directory_goes_and_one_with_the_users_files_stays(prefix: Path) -> None:
    site = prefix / "site"
    (site / "gone" / "deep").mkdir(parents=True)
    (site / "gone" / "deep" / "it.py").write_text("x", encoding="utf-8")
    staging(prefix)
    aside = frozenset({site / "gone" / "deep" / "it.py", site / "old" / "__init__.py"})
    with replacing(prefix, Swap(aside=aside, place={})):
        assert not (site / "gone").exists()
        assert (site / "old" / "mine.txt").exists()


def test_a_file_that_is_hard_linked_elsewhere_keeps_its_content_there(prefix: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.py"
    os.link(prefix / "site" / "old" / "__init__.py", cache)
    with replacing(prefix, a_swap(prefix)):
        pass
    assert cache.read_text(encoding="utf-8") == "old"


def test_what_was_only_prepared_is_cleared_without_a_word(prefix: Path) -> None:
    before = grown(prefix)
    a_swap(prefix)
    assert not is_half_done(prefix)
    assert heal(prefix) is False
    assert grown(prefix) == before
    assert not (prefix / transaction.WORK).exists()


def test_a_journal_that_cannot_be_read_is_told_and_nothing_is_deleted(prefix: Path) -> None:
    a_swap(prefix)
    (prefix / transaction.WORK / "journal.json").write_text("{", encoding="utf-8")
    with pytest.raises(EnvironmentProblem) as caught:
        heal(prefix)
    assert caught.value.code == "state-broken"
    assert (prefix / transaction.WORK).exists()


def test_a_journal_of_a_newer_bnbenv_is_left_to_it(prefix: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    with replacing(prefix, a_swap(prefix)):
        shutil.copytree(prefix, half)
    journal = half / transaction.WORK / "journal.json"
    document = json.loads(journal.read_text(encoding="utf-8"))
    journal.write_text(json.dumps({**document, "schema": 2}), encoding="utf-8")
    before = grown(half)
    with pytest.raises(EnvironmentProblem, match="schema 2") as caught:
        heal(half)
    assert (caught.value.code, caught.value.hint) == ("state-too-new", UPGRADE)
    assert grown(half) == before
    assert is_half_done(half)


_VICTIM = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from env.test_transaction import a_swap
    from bnbenv.env.transaction import replacing
    calls = 0
    def counted(event, args):
        global calls
        if event == "os.rename":
            calls += 1
            if calls > {moment}:
                os.kill(os.getpid(), signal.SIGKILL)
    prefix = Path({prefix!r})
    swap = a_swap(prefix)
    sys.addaudithook(counted)
    with replacing(prefix, swap):
        pass
    """
)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
@pytest.mark.parametrize("moment", range(6))
def test_a_kill_before_any_rename_is_healed_by_the_next_comer(prefix: Path, moment: int) -> None:
    before = grown(prefix)
    tests = str(Path(__file__).resolve().parents[1])
    code = _VICTIM.format(tests=tests, moment=moment, prefix=str(prefix))
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert heal(prefix) == (moment > 0)  # the first rename is the journal's own
    assert grown(prefix) == before
    assert not (prefix / transaction.WORK).exists()
