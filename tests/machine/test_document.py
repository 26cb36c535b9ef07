from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnbenv.errors import UsageError
from bnbenv.machine.document import target_from_dict, target_to_dict
from bnbenv.machine.target import Accelerator, Arch, Gpu, Libc, OsName, Target
from bnbenv.units import ComputeCapability, DottedVersion, DriverVersion

versions = st.lists(st.integers(0, 9999), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
names = st.text(st.characters().filter(str.isprintable), min_size=1)
flags = st.booleans()
small = st.integers(0, 2**40)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy)


def could_be(accelerator: str, gpu: Gpu) -> bool:
    if gpu.compute_capability is None and gpu.gfx is None:
        return True
    return bool({"cuda": gpu.compute_capability, "rocm": gpu.gfx}.get(accelerator))


gpus = st.builds(
    Gpu,
    name=names,
    compute_capability=maybe(st.builds(ComputeCapability, st.integers(1, 99), st.integers(0, 9))),
    gfx=maybe(st.from_regex(r"gfx[0-9a-f]{3,5}", fullmatch=True)),
    memory_mib=maybe(small),
    index=maybe(small),
    uuid=maybe(names),
    pci_id=maybe(st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{4}", fullmatch=True)),
    visible=maybe(flags),
    mig=maybe(flags),
    integrated=maybe(flags),
)
minors = st.lists(st.tuples(st.just(3), st.integers(0, 20)), unique=True).map(
    lambda found: tuple(f"{major}.{minor}" for major, minor in sorted(found))
)
targets = st.builds(
    Target,
    name=names,
    os=st.sampled_from(get_args(OsName)),
    arch=st.sampled_from(get_args(Arch)),
    accelerator=st.sampled_from(get_args(Accelerator)),
    libc=maybe(
        st.builds(Libc, family=st.sampled_from(["glibc", "musl"]), version=versions.map(DottedVersion.parse))
    ),
    wsl=flags,
    tegra=flags,
    driver=maybe(versions.map(DriverVersion.parse)),
    gpus=st.lists(gpus, max_size=4).map(tuple),
    pythons=minors,
    rocm=maybe(names),
    l4t=maybe(names),
    cpu_flags=maybe(st.frozensets(names)),
    libstdcxx=maybe(versions.map(DottedVersion.parse)),
).filter(
    lambda target: (
        target.accelerator == "cpu"
        or not target.gpus
        or any(could_be(target.accelerator, gpu) for gpu in target.gpus)
    )
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(targets)
def test_a_target_survives_its_file(target: Target) -> None:
    again = target_from_dict(json.loads(json.dumps(target_to_dict(target))))
    assert again == target
    assert str(again.driver) == str(target.driver)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(targets, st.dictionaries(st.text().map(lambda key: f"x-{key}"), st.integers()))
def test_unknown_keys_are_ignored(target: Target, more: dict[str, int]) -> None:
    document = {**target_to_dict(target), **more}
    document["gpus"] = [{**gpu, **more} for gpu in document["gpus"]]
    assert target_from_dict(document) == target


MINIMAL: dict[str, Any] = {"os": "linux", "arch": "x86_64", "accelerator": "cuda"}


def test_an_absent_key_is_unknown() -> None:
    target = target_from_dict(MINIMAL)
    assert (target.driver, target.libc, target.gpus, target.pythons) == (None, None, (), ())
    assert (target.cpu_flags, target.libstdcxx, target.rocm, target.l4t) == (None, None, None, None)
    assert target_from_dict({**MINIMAL, "driver": None, "gpus": None, "cpu": None, "libc": None}) == target


def test_the_example_of_the_contract() -> None:
    document = {
        "schema": 1,
        "name": "lab-a",
        "os": "linux",
        "arch": "x86_64",
        "libc": {"family": "glibc", "version": "2.35"},
        "wsl": False,
        "tegra": False,
        "accelerator": "cuda",
        "driver": "550.54.15",
        "gpus": [{"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "memory_mib": 24564}],
        "pythons": ["3.11", "3.12"],
    }
    assert target_to_dict(target_from_dict(document)) == document


def test_the_whole_output_of_detect_is_a_target_file() -> None:
    inner = {**MINIMAL, "name": "lab-b"}
    envelope = {"schema": "bnbenv.detect/1", "status": "ok", "data": {"target": inner}, "problems": []}
    assert target_from_dict(envelope) == target_from_dict(inner)


@pytest.mark.parametrize(
    ("gpus", "accelerator"),
    [
        ([{"compute_capability": "8.9"}], "cuda"),
        ([{"gfx": "gfx1100"}], "rocm"),
        ([{"gfx": "gfx90a:sramecc+:xnack-"}], "rocm"),
    ],
    ids=["cuda", "rocm", "rocm-with-features"],
)
def test_gpus_tell_the_accelerator_and_their_names(gpus: list[dict[str, str]], accelerator: str) -> None:
    target = target_from_dict({"os": "linux", "arch": "x86_64", "gpus": gpus})
    assert target.accelerator == accelerator
    assert target.gpus[0].name


AMD = {"gfx": "gfx942"}
NVIDIA = {"compute_capability": "8.9"}


@pytest.mark.parametrize(
    ("accelerator", "gpus"),
    [("cuda", [AMD]), ("cuda", [AMD, AMD]), ("rocm", [NVIDIA]), ("xpu", [NVIDIA]), ("mps", [NVIDIA, AMD])],
)
def test_an_accelerator_that_no_gpu_can_be_is_refused(accelerator: str, gpus: list[dict[str, str]]) -> None:
    with pytest.raises(UsageError, match=r"^`target\.accelerator` is .* GPUs of `target\.gpus`") as caught:
        target_from_dict({**MINIMAL, "accelerator": accelerator, "gpus": gpus})
    assert caught.value.code == "bad-target"


@pytest.mark.parametrize(
    ("accelerator", "gpus"),
    [
        ("cpu", [NVIDIA]),
        ("cuda", [NVIDIA, AMD]),
        ("rocm", [NVIDIA, AMD]),
        ("xpu", [{"name": "Arc"}, NVIDIA]),
        ("cuda", []),
    ],
)
def test_an_accelerator_that_a_gpu_can_be_is_taken(accelerator: str, gpus: list[dict[str, str]]) -> None:
    target = target_from_dict({**MINIMAL, "accelerator": accelerator, "gpus": gpus})
    assert target.accelerator == accelerator


@pytest.mark.parametrize("text", ["3.12.4", "3.12"])
def test_pythons_are_minor_versions(text: str) -> None:
    assert target_from_dict({**MINIMAL, "pythons": [text, "3.9"]}).pythons == ("3.9", "3.12")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"os": None}, "target.os"),
        ({"os": "beos"}, "target.os"),
        ({"arch": "amd64"}, "target.arch"),
        ({"accelerator": None}, "target.accelerator"),
        ({"accelerator": "tpu"}, "target.accelerator"),
        ({"accelerator": ["cuda"]}, "target.accelerator"),
        ({"schema": 2}, "target.schema"),
        ({"schema": "1"}, "target.schema"),
        ({"name": 7}, "target.name"),
        ({"name": "lab\nnext: sh evil.sh"}, "target.name"),
        ({"rocm": "6\x1b[2J"}, "target.rocm"),
        ({"driver": 550}, "target.driver"),
        ({"driver": "latest"}, "target.driver"),
        ({"libc": "glibc 2.35"}, "target.libc"),
        ({"libc": {"family": "bionic", "version": "1"}}, "target.libc.family"),
        ({"libc": {"family": "glibc"}}, "target.libc.version"),
        ({"libc": {"family": "glibc", "version": "two"}}, "target.libc.version"),
        ({"wsl": "yes"}, "target.wsl"),
        ({"tegra": 1}, "target.tegra"),
        ({"gpus": {}}, "target.gpus"),
        ({"gpus": [3]}, "target.gpus[0]"),
        ({"gpus": [{"name": "a"}, {}]}, "target.gpus[1].name"),
        ({"gpus": [{"name": "\u202ea"}]}, "target.gpus[0].name"),
        ({"gpus": [{"name": "a", "compute_capability": "new"}]}, "target.gpus[0].compute_capability"),
        ({"gpus": [{"name": "a", "compute_capability": 8.9}]}, "target.gpus[0].compute_capability"),
        ({"gpus": [{"name": "a", "gfx": "1100"}]}, "target.gpus[0].gfx"),
        ({"gpus": [{"name": "a", "memory_mib": -1}]}, "target.gpus[0].memory_mib"),
        ({"gpus": [{"name": "a", "memory_mib": True}]}, "target.gpus[0].memory_mib"),
        ({"gpus": [{"name": "a", "pci_id": "2684"}]}, "target.gpus[0].pci_id"),
        ({"gpus": [{"name": "a", "visible": "no"}]}, "target.gpus[0].visible"),
        ({"pythons": "3.12"}, "target.pythons"),
        ({"pythons": ["3.12", "newest"]}, "target.pythons[1]"),
        ({"cpu": {"flags": "avx2"}}, "target.cpu.flags"),
        ({"cpu": []}, "target.cpu"),
        ({"libstdcxx": "GLIBCXX_3.4.30"}, "target.libstdcxx"),
    ],
    ids=str,
)
def test_bad_input_names_the_key(change: dict[str, Any], key: str) -> None:
    with pytest.raises(UsageError) as caught:
        target_from_dict({**MINIMAL, **change})
    assert f"`{key}`" in caught.value.message
    assert caught.value.code == "bad-target"


@pytest.mark.parametrize("data", [None, 3, "text", [MINIMAL]], ids=str)
def test_what_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(UsageError, match=r"`lab\.json` is not an object"):
        target_from_dict(data, where="lab.json")


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)
KEYS = [*target_to_dict(target_from_dict(MINIMAL)), "cpu", "libstdcxx", "rocm", "l4t", "data"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYS), json_values))
def test_nothing_but_a_usage_error_is_raised(data: dict[str, Any]) -> None:
    try:
        target_from_dict(data)
    except UsageError:
        return
