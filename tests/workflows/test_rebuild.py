from __future__ import annotations

from pathlib import Path

import pytest

from bnbenv.dataclass import replace
from bnbenv.env.installed import Distribution, Installed
from bnbenv.workflows.rebuild import wanted_anew
from bnbenv.workflows.request import Wanted

ASKED = Wanted(profile="qlora", torch=">=2.9", bitsandbytes="==0.50.2", packages=("einops",))


def holding(torch: str, python: str | None = "3.11.7") -> Installed:
    site = Path("/env/lib/python3.11/site-packages")
    found = Distribution(
        name="torch",
        version=torch,
        installer="pip",
        direct_url=None,
        editable=False,
        has_record=True,
        location=site,
        metadata=site / "torch.dist-info",
    )
    return Installed(
        prefix=Path("/env"), kind="bnbenv", python=python, site_packages=(site,), distributions=(found,)
    )


@pytest.mark.parametrize("mode", ["auto", "keep-torch", "upgrade"])
def test_the_python_stays_for_the_users_files_stand_in_its_directory(mode: str) -> None:
    asked = wanted_anew(ASKED, holding("2.14.1"), mode, keep_torch=True)  # type: ignore[arg-type]
    assert asked.python == "3.11"
    assert asked.packages == ("einops",)


@pytest.mark.parametrize(
    ("torch", "cuda"),
    [
        ("2.14.1", None),
        ("2.9.1+cu126", "12.6"),
        ("2.13.0+cpu", None),
        ("2.9+cu130", "13.0"),
        ("2.9+cu", None),
        ("2.9+custom", None),
    ],
)
def test_a_torch_that_stays_is_pinned_and_bitsandbytes_is_left_open(torch: str, cuda: str | None) -> None:
    asked = wanted_anew(ASKED, holding(torch), "auto", keep_torch=True)
    assert (asked.torch, asked.cuda, asked.bitsandbytes) == (f"=={torch.partition('+')[0]}", cuda, None)


def test_who_gives_the_accelerator_up_keeps_the_release_and_not_its_cuda() -> None:
    asked = wanted_anew(replace(ASKED, cpu=True), holding("2.9.1+cu126"), "auto", keep_torch=True)
    assert (asked.torch, asked.cuda) == ("==2.9.1", None)


def test_an_upgrade_leaves_the_stack_open() -> None:
    asked = wanted_anew(ASKED, holding("2.9.1+cu126"), "upgrade", keep_torch=False)
    assert (asked.torch, asked.cuda, asked.bitsandbytes) == (None, None, None)


def test_what_was_asked_for_stays_where_torch_is_chosen_again() -> None:
    asked = wanted_anew(ASKED, holding("2.9.1"), "auto", keep_torch=False)
    assert (asked.torch, asked.bitsandbytes) == (">=2.9", "==0.50.2")


def test_a_base_has_its_own_python() -> None:
    based = Wanted(profile="qlora", base="/usr/bin/python3")
    assert wanted_anew(based, holding("2.9.1"), "auto", keep_torch=False).python is None
