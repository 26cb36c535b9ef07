from __future__ import annotations

from dataclasses import replace

from bnbenv.lockfile.difference import differences
from bnbenv.lockfile.index import MachineClass, TeamLock
from support.variants import CPU

CUDA = replace(CPU, name="cu126")


def serving(variant: str, *machines: str) -> MachineClass:
    return MachineClass(variant=variant, machines=machines, facts={}, seen="2026-11-23")


LOCK = TeamLock(
    request={"profile": "qlora"},
    matrix="2026.11.23",
    variants=(CPU, CUDA),
    classes=(serving("cpu", "ci"), serving("cu126", "desk")),
)
TEXT = 'lock-version = "1.0"\ncreated-by = "uv"\npackages = []\n'
TEXTS = {"cpu": TEXT, "cu126": TEXT}
FILES = {"pylock.cpu.toml": TEXT, "pylock.cu126.toml": TEXT}


def test_two_alike_do_not_differ() -> None:
    assert differences(LOCK, TEXTS, LOCK, FILES) == ()


def test_a_lock_that_goes_is_told_though_no_machine_does() -> None:
    idle = replace(LOCK, classes=LOCK.classes[1:])
    after = replace(idle, variants=(CUDA,))
    assert differences(idle, TEXTS, after, FILES) == ("pylock.cpu.toml goes: no machine needs it",)
    assert differences(LOCK, TEXTS, after, FILES) == (
        "ci: no longer in the lock; had cpu",
        "pylock.cpu.toml goes: no machine needs it",
    )


def test_what_changes_for_nobody_is_told_as_that() -> None:
    files = {**FILES, "pylock.cpu.toml": TEXT + '[tool.bnbenv]\nvariant = "cpu"\n'}
    other = replace(LOCK, variants=(replace(CPU, sha256="cd" * 32), CUDA))
    told = "the same for everybody; only what the locks say of themselves and of machines changed"
    assert differences(LOCK, TEXTS, other, files) == (told,)
    assert told not in differences(LOCK, TEXTS, replace(other, matrix="2026.11.30"), files)
    newer = replace(LOCK.classes[1], facts={"driver": "580.65.06"})
    assert differences(LOCK, TEXTS, replace(LOCK, classes=(LOCK.classes[0], newer)), FILES) == (told,)
    unsound = {"cu126": TEXT}  # its file was not what the index names: whoever reads it says so
    assert differences(LOCK, unsound, other, files) == ()
