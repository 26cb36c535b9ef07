from __future__ import annotations

from argparse import ArgumentParser

import pytest

from bnbenv.cli.options import add_target, description_words


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["--target", "lab a.json"],
        ["--gpu", "RTX 4090", "--gpu", "6.1", "--driver", "550", "--os", "linux", "--glibc", "2.35"],
    ],
    ids=["this machine", "a file", "described"],
)
def test_what_describes_another_machine_is_given_back(typed: list[str]) -> None:
    parser = ArgumentParser()
    add_target(parser)
    assert description_words(parser.parse_args(typed)) == tuple(typed)
