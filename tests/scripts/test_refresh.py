from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pypi_simple import DistributionPackage

from _refresh import settle, settle_rows
from bnbenv.errors import DataError
from bnbenv.matrix.load import load
from bnbenv.matrix.measure_torch import TorchFacts, read_requirements, serving
from bnbenv.matrix.news import (
    Group,
    Listed,
    bitsandbytes_rows,
    candidates,
    groups,
    listed_wheels,
    torch_row,
    torch_rows,
)
from bnbenv.matrix.published import published_rows
from bnbenv.matrix.rows import BitsandbytesWheel, BrokenRelease, Provenance, TorchBuild
from bnbenv.units import ComputeCapability, CudaVersion
from check_compat import check, main
from refresh_floors import floors_in
from refresh_floors import rows_from as floor_rows
from refresh_gpus import from_pci_ids
from refresh_gpus import rows_from as gpu_rows
from refresh_profiles import combinations, program, requirements
from refresh_profiles import rows_from as profile_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

COMPAT = Path(__file__).resolve().parents[2] / "compat"
MATRIX = load(directory=COMPAT)


def package(name: str, **known: object) -> DistributionPackage:
    parts = name.removesuffix(".whl").split("-")
    values = {
        "filename": name,
        "url": f"https://index.example/{name}",
        "project": parts[0],
        "version": parts[1],
        "package_type": "wheel",
        "digests": {"sha256": "0" * 64},
        "requires_python": None,
        "has_sig": None,
        "size": 1000,
        "upload_time": datetime(2026, 1, 2, tzinfo=timezone.utc),
        "is_yanked": False,
    }
    return DistributionPackage(**{**values, **known})  # type: ignore[arg-type]


def test_wheels_of_interest_out_of_an_index_page() -> None:
    page = [
        package("bitsandbytes-0.34.0-py3-none-any.whl"),
        package("bitsandbytes-0.50.2-py3-none-win_amd64.whl"),
        package("bitsandbytes-0.42.0.tar.gz", package_type="sdist"),
    ]
    [listed] = listed_wheels(page)
    assert (listed.wheel, listed.uploaded) == ("bitsandbytes-0.50.2-py3-none-win_amd64.whl", "2026-01-02")


def _listed(row: BitsandbytesWheel) -> Listed:
    return Listed(
        wheel=row.wheel, version=row.version, sha256=row.sha256, size=row.size, uploaded=row.uploaded, url=""
    )


def test_only_wheels_that_are_not_held_are_measured() -> None:
    held, new = MATRIX.bitsandbytes[:5], MATRIX.bitsandbytes[5]
    asked: list[Listed] = []

    def measure(wheels: object) -> list[BitsandbytesWheel]:
        asked.extend(wheels)  # type: ignore[arg-type]
        return [new]

    rows = bitsandbytes_rows([_listed(row) for row in (*held, new)], held, MATRIX.broken, measure)
    assert [wheel.wheel for wheel in asked] == [new.wheel]
    assert rows == [*held, new]


def test_a_wheel_that_was_replaced_under_its_name_is_measured_again() -> None:
    row = MATRIX.bitsandbytes[-1]
    changed = replace(_listed(row), sha256="f" * 64)
    asked: list[Listed] = []

    def measure(wheels: object) -> list[BitsandbytesWheel]:
        asked.extend(wheels)  # type: ignore[arg-type]
        return []

    bitsandbytes_rows([changed], [row], (), measure)
    assert asked == [changed]


def test_a_release_is_broken_on_the_systems_named_only() -> None:
    row = next(row for row in MATRIX.bitsandbytes if row.os == "linux" and not row.broken)
    why = BrokenRelease(
        versions=f"=={row.version}",
        os=("linux",),
        reason="it is",
        provenance=Provenance(how="published", source="x#1", checked="2026-01-01"),
    )
    [there] = bitsandbytes_rows([], [row], [why], lambda _: [])
    [elsewhere] = bitsandbytes_rows([], [row._replace(os="windows")], [why], lambda _: [])
    assert (there.broken, elsewhere.broken) == ("it is (x#1)", None)


def test_one_wheel_a_platform_is_read_and_the_newest_build_of_it() -> None:
    page = [
        package("torch-2.10.0-1-cp311-cp311-manylinux_2_28_x86_64.whl"),
        package("torch-2.10.0-3-cp311-cp311-manylinux_2_28_x86_64.whl"),
        package("torch-2.10.0-3-cp310-cp310-manylinux_2_28_x86_64.whl"),
        package("torch-2.10.0-cp314-cp314t-manylinux_2_28_x86_64.whl"),
        package("torch-2.10.0-cp312-cp312-win_amd64.whl"),
        package("torch-1.13.1-cp310-cp310-manylinux1_x86_64.whl"),
    ]
    made = {group.chosen.platform: group for group in groups(candidates(page))}
    linux = made["manylinux_2_28_x86_64"]
    assert linux.chosen.wheel == "torch-2.10.0-3-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert linux.pythons == ("3.10", "3.11")
    assert made["win_amd64"].pythons == ("3.12",)


FACTS = TorchFacts(
    cuda=CudaVersion(13, 2),
    rocm=None,
    cubins=(ComputeCapability(7, 5),),
    ptx=(),
    triton="triton==3.9.0",
    nvidia=(),
)


def _group(name: str) -> Group:
    [group] = groups(candidates([package(name)]))
    return group


def test_the_build_is_named_after_what_was_measured() -> None:
    row = torch_row(_group("torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl"), FACTS)
    assert (row.build, row.local, row.index) == ("cu132", None, "pypi")
    assert str(row.glibc) == "2.28"
    none = replace(FACTS, cuda=None, cubins=())
    assert torch_row(_group("torch-2.15.0-cp311-cp311-win_amd64.whl"), none).build == "cpu"
    mac = torch_row(_group("torch-2.15.0-cp311-none-macosx_14_0_arm64.whl"), none)
    assert (mac.build, str(mac.macos)) == ("mps", "14.0")


def test_a_new_python_for_a_known_release_costs_no_measuring() -> None:
    held = torch_row(_group("torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl"), FACTS)
    listed = groups(
        candidates(
            [
                package("torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl"),
                package("torch-2.15.0-cp315-cp315-manylinux_2_28_x86_64.whl"),
            ]
        )
    )

    def measure(new: object) -> list[TorchBuild]:
        assert not new
        return []

    [row] = torch_rows(listed, [held], measure)
    assert row.pythons == ("3.11", "3.15")


def test_capabilities_of_a_few_kernels_do_not_count() -> None:
    counts = {"7.5": 475, "8.6": 475, "8.9": 1, "10.0": 534, "10.3": 59, "12.0": 476}
    images = {ComputeCapability.parse(text): count for text, count in counts.items()}
    assert [str(found) for found in serving(images)] == ["7.5", "8.6", "10.0", "12.0"]


def test_requirements_are_those_of_the_platform() -> None:
    from email.message import Message

    metadata = Message()
    for text in (
        'nvidia-cudnn-cu12==9.1 ; platform_system == "Linux" and platform_machine == "x86_64"',
        'triton==3.1.0 ; platform_machine == "x86_64" and platform_system == "Linux"',
        "filelock",
        'opt-einsum>=3.3 ; extra == "opt-einsum"',
    ):
        metadata["Requires-Dist"] = text
    assert read_requirements(metadata, os="linux", arch="x86_64", python="3.12") == (
        "triton==3.1.0",
        ("nvidia-cudnn-cu12==9.1",),
    )
    assert read_requirements(metadata, os="windows", arch="x86_64", python="3.12") == (None, ())
    assert read_requirements(metadata, os="linux", arch="aarch64", python="3.12") == (None, ())


def test_apples_processors_are_named_as_python_names_them() -> None:
    from email.message import Message

    metadata = Message()
    metadata["Requires-Dist"] = 'triton==3.5.0 ; platform_machine == "arm64"'
    assert read_requirements(metadata, os="macos", arch="aarch64", python="3.12") == ("triton==3.5.0", ())


def test_a_run_of_releases_becomes_a_row_each() -> None:
    run = next(run for run in MATRIX.torch_published if len(run.releases) > 1 and run.build == "cu126")
    rows = published_rows([run])
    assert [row.version for row in rows] == list(run.releases)
    assert {(row.index, row.local, str(row.cuda)) for row in rows} == {("pytorch-cu126", "cu126", "12.6")}


def test_a_build_of_another_index_is_named_as_that_index_names_it() -> None:
    named = {
        (row.index, row.build): (row.local, str(row.cuda), row.l4t)
        for row in published_rows(run for run in MATRIX.torch_published if run.index)
    }
    assert named == {
        ("jetson-jp6-cu126", "jp6.cu126"): (None, "12.6", 36),
        ("nvidia", "cu134"): ("cu134", "13.4", None),
    }


def test_names_and_ids_out_of_pci_ids() -> None:
    lines = [
        "10de  NVIDIA Corporation",
        "\t2684  AD102 [GeForce RTX 4090]",
        "\t\t10de 1111  a board",
        "\t9999  ZZ999 [GeForce of a chip unknown here]",
        "\t1b38  GP102GL [Tesla P40]",
        "\t22a3  GH100 [H100 NVSwitch]",
        "1002  Advanced Micro Devices",
        "# a comment is no vendor",
        "\t2684  AD102 [not NVIDIA's]",
    ]
    rows = from_pci_ids(lines)
    assert [(row.name, row.pci_ids, str(row.capabilities[0])) for row in rows] == [
        ("GeForce RTX 4090", ("2684",), "8.9"),
        ("Tesla P40", ("1B38",), "6.1"),
    ]
    assert gpu_rows(MATRIX.gpus, MATRIX.gpus_named, rows) == list(MATRIX.gpus)


def test_names_and_targets_of_amd_out_of_pci_ids() -> None:
    lines = [
        "1002  Advanced Micro Devices",
        "\t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX]",
        "\t7480  Navi 33 [Radeon RX 7600/7700S / PRO W7600]",
        "\t7487  Navi 33 [Radeon Graphics]",
        "\t7448  Navi 31 [Radeon Pro W7900]",
        "\t738c  Arcturus GL-XL [Instinct MI100]",
        "\t75a3  Aqua Vanjaram [Instinct MI355X]",
        "\t1586  Strix Halo [Radeon Graphics / Radeon 8050S Graphics / Radeon 8060S Graphics]",
        "\t7446  Navi 31 USB",
    ]
    assert [(row.name, row.pci_ids[0], row.gfx[0]) for row in from_pci_ids(lines)] == [
        ("AMD Radeon RX 7900 XT", "744C", "gfx1100"),
        ("AMD Radeon RX 7900 XTX", "744C", "gfx1100"),
        ("AMD Radeon RX 7600", "7480", "gfx1102"),
        ("AMD Radeon RX 7700S", "7480", "gfx1102"),
        ("AMD Radeon PRO W7600", "7480", "gfx1102"),
        ("AMD Radeon PRO W7900", "7448", "gfx1100"),
        ("AMD Instinct MI100", "738C", "gfx908"),
        ("AMD Instinct MI355X", "75A3", "gfx950"),
        ("AMD Radeon 8050S", "1586", "gfx1151"),
        ("AMD Radeon 8060S", "1586", "gfx1151"),
    ]


def test_a_product_of_amd_does_not_lose_its_id_to_one_of_nvidia() -> None:
    held = [row for row in MATRIX.gpus if row.name == "GeForce GTX 980"]
    own = MATRIX.gpus[0]._replace(
        name="AMD of a test", pci_ids=held[0].pci_ids, capabilities=(), gfx=("gfx1036",)
    )
    assert gpu_rows(held, [], [own]) == [*held, own]


def test_each_python_is_proven_with_its_oldest_and_newest_torch() -> None:
    package_set = MATRIX.profiles[0].sets[0]
    tried = list(combinations(package_set, MATRIX.torch))
    assert ("3.11", "2.6.0") in tried
    assert ("3.14", "2.9.0") in tried
    assert not [python for python, _ in tried if python == "3.10"]
    assert requirements(package_set, "2.6.0")[0] == "torch==2.6.0"


def test_a_set_that_does_not_resolve_is_an_error_in_the_resolvers_words() -> None:
    with pytest.raises(DataError, match="no such package"):
        profile_rows(MATRIX.profiles, MATRIX.torch, ["qlora"], lambda *_: "no such package")
    rows = profile_rows(MATRIX.profiles, MATRIX.torch, ["qlora"], lambda *_: None)
    assert rows[0].provenance.how == "measured"
    assert rows[1:] == list(MATRIX.profiles[1:])


def test_a_set_that_does_not_import_is_an_error() -> None:
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    asked: list[tuple[str, str]] = []

    def fails(lines: Sequence[str], text: str) -> str | None:
        asked.append((lines[0], text))
        return "No module named 'setuptools'" if len(asked) > 1 else None

    with pytest.raises(
        DataError, match=rf"Python {re.escape(python)}, torch .* does not import:\nNo module named"
    ):
        profile_rows(MATRIX.profiles, MATRIX.torch, ["inference"], lambda *_: None, fails)
    assert len(asked) == 2
    assert asked[0][0].startswith("torch==")
    rows = profile_rows(MATRIX.profiles, MATRIX.torch, ["inference"], lambda *_: None, lambda *_: None)
    proven = next(row for row in rows if row.name == "inference").provenance.source
    assert re.search(rf"resolve; installed on Python {re.escape(python)} and imported: \d+ of them$", proven)


def test_what_is_imported_is_what_the_profile_is_for() -> None:
    rows = {row.name: row for row in MATRIX.profiles}
    lines = program(rows["qlora"], rows["qlora"].sets[0]).splitlines()
    assert {"import torch", "from trl import SFTConfig, SFTTrainer"} <= set(lines)
    assert "import exllama_kernels" in program(rows["gptq-legacy"], rows["gptq-legacy"].sets[0]).splitlines()


def test_nothing_is_written_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "causes.toml"
    path.write_text("old\n", encoding="utf-8")
    assert settle(path, "new\n", write=False) == 1
    assert path.read_text(encoding="utf-8") == "old\n"
    shown = capsys.readouterr().out
    assert "-old\n" in shown
    assert "+new\n" in shown
    assert settle(path, "new\n", write=True) == 1
    assert path.read_text(encoding="utf-8") == "new\n"
    assert settle(path, "new\n", write=True) == 0


def test_the_revision_moves_only_when_a_row_does(tmp_path: Path) -> None:
    text = (COMPAT / "gpus.json").read_text(encoding="utf-8").replace("2026.11.23", "2020.01.01", 1)
    path = tmp_path / "gpus.json"
    path.write_text(text, encoding="utf-8")
    assert settle_rows("gpus", path, MATRIX.gpus, write=True) == 0
    assert settle_rows("gpus", path, MATRIX.gpus[1:], write=True) == 1
    assert '"revision": "2020.01.01"' not in path.read_text(encoding="utf-8")


def test_the_committed_data_has_no_fault() -> None:
    assert check(COMPAT) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("bitsandbytes.json", '"toolkit": "12.6"', '"toolkit": "12.4"', "is not in its name"),
        ("bitsandbytes.json", '"cubins": ["6.0", "7.0"', '"cubins": ["7.0", "6.0"', "not ascending"),
        ("torch.json", '"cuda": "13.2"', '"cuda": "13.0"', "is not what the build is called"),
        ("torch.json", '"index": "pytorch-cu126"', '"index": "pytorch-cu127"', "does not know this index"),
        ("drivers.toml", 'branch = 580, cuda = "13.0"', 'branch = 580, cuda = "12.9"', "no newer CUDA"),
        ("broken.toml", '"==0.48.0"', '"==0.48.2"', "is not what broken.toml says"),
        ("loaders.toml", '">=0.50"', '">=0.51"', "0 rules of loaders.toml"),
        ("loaders.toml", '">=0.50"', '"since 0.50"', "is no specifier"),
        ("profiles.toml", ">=0.46.1,<0.51", ">=0.91,<0.99", "no sound release"),
        ("profiles.toml", 'imports = ["gptqmodel"]\n', "", "nothing to test it by"),
        ("floors.toml", '">=5.1,<5.15"', '"5.1 to 5.14"', "is no specifier"),
        ("causes.toml", 'id = "unknown"', 'id = "driver-too-old"', "stands twice"),
        (
            "torch_published.toml",
            'build = "cu126"',
            'build = "cu124"',
            "is not what torch_published.toml says",
        ),
        (
            "bitsandbytes_published.toml",
            'cubins = ["8.7"]',
            'cubins = ["8.6"]',
            "is not what bitsandbytes_published.toml says",
        ),
    ],
)
def test_a_planted_contradiction_is_found(tmp_path: Path, file: str, old: str, new: str, words: str) -> None:
    for path in COMPAT.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = (tmp_path / file).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    faults = check(tmp_path)
    assert any(words in fault for fault in faults), faults


def test_the_directory_to_check_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "gone")])
    assert "there is no directory" in capsys.readouterr().err


def test_floors_are_read_out_of_source_and_metadata() -> None:
    source = (
        'logger.warning(f"Disabling PyTorch because PyTorch >= 2.6 is required but found {v}")\n'
        'BITSANDBYTES_MIN_VERSION = "0.46.1"\n'
    )
    asks = {"transformers/utils/import_utils.py": source}
    assert floors_in(asks, ">=3.11") == {"torch": ">=2.6", "bitsandbytes": ">=0.46.1", "python": ">=3.11"}
    assert floors_in({}, None) == {}


def test_a_floor_is_read_out_of_what_a_module_uses_at_import() -> None:
    asks = {"transformers/utils/import_utils.py": "PyTorch >= 2.1 is required"}
    generic, attention = "transformers/utils/generic.py", "transformers/integrations/flex_attention.py"
    both = "    register_pytree_node(\nelse:\n    _torch_pytree._register_pytree_node(\n"
    assert floors_in({generic: both}, None) == {}
    assert floors_in({**asks, generic: "_torch_pytree.register_pytree_node(\n"}, None) == {"torch": ">=2.2"}
    assert floors_in({attention: "# `@torch.compiler.disable` is slow"}, None) == {}
    assert floors_in({attention: "    @torch.compiler.disable(recursive=False)"}, None) == {"torch": ">=2.1"}


def test_a_floor_that_moved_moves_the_row_and_a_lost_one_is_an_error() -> None:
    moved = {"torch": ">=2.7", "python": ">=3.11", "bitsandbytes": ">=0.46.1"}
    rows = floor_rows(MATRIX.floors, lambda _: ("transformers-9.whl sha256:0", moved))
    for old, new in zip(MATRIX.floors, rows, strict=True):
        if old.package == "transformers" and not old.provenance.source.startswith("imported:"):
            assert new.needs["torch"] == ">=2.7"
            assert new.provenance.how == "measured"
        else:
            assert new == old
    with pytest.raises(DataError, match="tells no floor on torch"):
        floor_rows(MATRIX.floors, lambda _: ("transformers-9.whl", {"python": ">=3.11"}))
