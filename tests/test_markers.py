from __future__ import annotations

import pytest

from bnbenv.markers import holding, of_platform, of_python


@pytest.mark.parametrize(
    ("python", "holds"),
    [("3.10", True), ("3.10.14", True), ("3.11.0", False), ("3.13", False)],
)
@pytest.mark.parametrize("variable", ["python_version", "python_full_version", "implementation_version"])
def test_a_marker_is_that_of_the_python_named(variable: str, python: str, holds: bool) -> None:
    asked = holding(f"exceptiongroup>=1; {variable} < '3.11'", of_python(python))
    assert (asked is not None) is holds


def test_an_unknown_python_leaves_the_running_ones_values() -> None:
    assert of_python(None) == {}
    assert holding("einops; python_version >= '3'", {}) is not None


@pytest.mark.parametrize(
    ("os", "arch", "machine", "system"),
    [
        ("linux", "x86_64", "x86_64", "Linux"),
        ("linux", "aarch64", "aarch64", "Linux"),
        ("macos", "aarch64", "arm64", "Darwin"),
        ("windows", "x86_64", "AMD64", "Windows"),
        ("windows", "aarch64", "ARM64", "Windows"),
    ],
)
def test_a_platform_is_told_as_python_tells_it_there(os: str, arch: str, machine: str, system: str) -> None:
    values = of_platform(os, arch)
    assert (values["platform_machine"], values["platform_system"]) == (machine, system)


@pytest.mark.parametrize(
    "text", ["einops; extra == 'x'", "no requirement >", "einops; python_version ~= 'x'"]
)
def test_what_does_not_hold_or_cannot_be_read_is_none(text: str) -> None:
    assert holding(text, {}) is None
