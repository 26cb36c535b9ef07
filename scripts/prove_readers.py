"""Damages real headers in thousands of ways: each reader must answer or say which file is damaged, and where.

Starts from small libraries and wheels with real headers (tests/matrix/binaries.py), changes bytes, cuts,
swaps stretches and plants absurd numbers, and reads the result. Any exception but the tree's own, an error
that does not name the file, or a case of more than two seconds is a miss. Then come archives and libraries
made by hand to exhaust their reader: each of them must be refused.

    python scripts/prove_readers.py [--cases N] [--seed N]
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import math
import os
import platform
import random
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _proof import ROOT, Proof, cover, save
from bnbenv.errors import BnbenvError
from bnbenv.matrix.load import load
from bnbenv.matrix.measure import Published, measure_bitsandbytes, measure_library
from bnbenv.memory.checkpoint import CONFIG, INDEX, SINGLE, read_checkpoint
from bnbenv.memory.estimate import Use, estimate
from bnbenv.memory.inventory import take_inventory
from bnbenv.memory.storage import Quantisation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

sys.path.insert(0, str(ROOT / "tests" / "matrix"))
binaries = importlib.import_module("binaries")

COVERED = (
    "src/bnbenv/matrix/binary.py",
    "src/bnbenv/matrix/elf.py",
    "src/bnbenv/matrix/pe.py",
    "src/bnbenv/matrix/macho.py",
    "src/bnbenv/matrix/fatbin.py",
    "src/bnbenv/matrix/offload.py",
    "src/bnbenv/matrix/wheel.py",
    "src/bnbenv/matrix/remote.py",
    "src/bnbenv/matrix/measure.py",
    "src/bnbenv/memory/strict.py",
    "src/bnbenv/memory/safetensors.py",
    "src/bnbenv/memory/checkpoint.py",
    "src/bnbenv/memory/inventory.py",
    "tests/matrix/binaries.py",
    "scripts/prove_readers.py",
)
LONGEST = 10.0  # seconds a case: a hang, not a machine that is busy with something else
ABSURD = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
WHEEL = "bitsandbytes-9.9.9-py3-none-any.whl"
# What is put in the place of a value of a model's JSON, and the bits of an element by a tensor's type.
STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**30, 10**4000, 1.5, float("nan"), float("inf"), 1e308),
    *("", "x" * 5000, "../model.safetensors", "/etc/passwd", "a\\b.safetensors", "\x00", "\x1b[2J", "\ud800"),
    *(
        [],
        [0],
        [0, 0],
        [-1, 4],
        [2**62, 2**62],
        {},
        {"a": {"a": {}}},
        "F8_E4M3",
        "BF16",
        "F4",
        "llama",
        "qwen3_moe",
    ),
)
WIDTHS = {"BF16": 16, "U8": 8, "F8_E4M3": 8, "F4": 4}
MODEL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "tie_word_embeddings": False,
    "mlp_bias": True,
    "quantization_config": {"llm_int8_skip_modules": ["lm_head"]},
}


class Memory:
    """A file held in memory."""

    def __init__(self, data: bytes) -> None:
        self.name, self.size, self._data = WHEEL, len(data), data

    def stream(self, offset: int, length: int) -> Iterator[bytes]:
        """The bytes of a stretch, in chunks."""
        for at in range(offset, min(offset + length, self.size), 4096):
            yield self._data[at : min(at + 4096, offset + length)]


def seeds() -> dict[str, tuple[str, bytes]]:
    """Kind → file name and sound bytes."""
    code = {
        ".nv_fatbin": binaries.fatbin(("cubin", 75), ("cubin", 86), ("cubin", 120)),
        "__nv_relfatbin": binaries.fatbin(("cubin", 75), ("ptx", 120)),
    }
    elf = binaries.elf(
        needed=("libcudart.so.12", "libc.so.6"),
        run_path="/usr/local/cuda/lib",
        versions=("GLIBC_2.17", "GLIBCXX_3.4.11"),
        sections=code,
    )
    rocm = binaries.elf(sections={".hip_fatbin": binaries.bundle("gfx90a", "gfx1100")})
    short = {name[:8]: data for name, data in code.items()}  # as a PE cuts section names
    dll = binaries.pe(imports=("cudart64_12.dll", "KERNEL32.dll"), sections=short)
    return {
        "elf": ("libbitsandbytes_cuda128.so", elf),
        "rocm": ("libbitsandbytes_rocm64.so", rocm),
        "pe": ("libbitsandbytes_cuda128.dll", dll),
        "macho": ("libbitsandbytes_cpu.dylib", binaries.macho("/usr/lib/libc++.1.dylib")),
        "wheel": (
            WHEEL,
            binaries.wheel(
                {"bitsandbytes/libbitsandbytes_cuda128.so": elf, "bitsandbytes/libbitsandbytes_cpu.dll": dll},
                metadata="Requires-Dist: torch<3,>=2.4\r\n",
            ),
        ),
    }


def packed(header: bytes, data: bytes) -> bytes:
    """A safetensors file."""
    return len(header).to_bytes(8, "little") + header + data


def tensors(*names: str) -> bytes:
    """A sound safetensors file with a matrix for each name."""
    header = {
        name: {"dtype": "BF16", "shape": [3, 4], "data_offsets": [24 * at, 24 * at + 24]}
        for at, name in enumerate(names)
    }
    return packed(json.dumps({"__metadata__": {"format": "pt"}, **header}).encode(), bytes(24 * len(names)))


def models() -> dict[str, tuple[str, bytes]]:
    """Kind → the file of a model that is damaged, and its sound bytes."""
    places = {name: f"{name}.safetensors" for name in ("first", "second")}
    return {
        "safetensors": (SINGLE, tensors("a", "b", "c")),
        "index": (INDEX, json.dumps({"metadata": {"total_size": 48}, "weight_map": places}).encode()),
        "config": (CONFIG, json.dumps(MODEL).encode()),
    }


def damage_meaning(kind: str, data: bytes, chance: random.Random) -> bytes:
    """One to three strange values, keys gone or twice, in the JSON of a model's file."""
    length = int.from_bytes(data[:8], "little") if kind == "safetensors" else 0
    body, rest = (data[8 : 8 + length], data[8 + length :]) if length else (data, b"")
    document = json.loads(body)
    for _ in range(chance.randint(1, 3)):
        places = [document]
        for place in places:
            inner = place.values() if isinstance(place, dict) else place
            places += [value for value in inner if isinstance(value, (dict, list)) and value]
        place = chance.choice(places)
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            continue
        key = chance.choice(keys)
        if chance.randrange(4) == 0:
            del place[key]
        else:
            place[key] = copy.deepcopy(chance.choice(STRANGE))
    text = json.dumps(document)
    if chance.randrange(8) == 0:
        text = text.replace("{", '{"a": 1, "a": 2, ', 1)
    if chance.randrange(20) == 0:
        text = "[" * chance.choice((10, 10**5)) + text
    encoded = text.encode("utf-8" if chance.randrange(10) else "utf-16", "replace")
    return packed(encoded, rest) if length else encoded


def damage(data: bytes, chance: random.Random) -> bytes:
    """One to four damages of any kind."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(max(len(damaged), 1))
        kind = chance.randrange(5)
        if kind == 0 and damaged:
            damaged[at] = chance.randrange(256)
        elif kind == 1:
            width, shape = chance.choice(((2, "<H"), (4, "<I"), (8, "<Q")))
            value = chance.choice(ABSURD) % 2 ** (8 * width)
            damaged[at : at + width] = struct.pack(shape, value)
        elif kind == 2:
            del damaged[at:]
        elif kind == 3:
            length = chance.randrange(1, 64)
            damaged[at : at + length] = damaged[: len(damaged[at : at + length])]
        else:
            damaged[at:at] = chance.randbytes(chance.randrange(1, 32))
    return bytes(damaged)


def bombs() -> dict[str, bytes]:
    """Archives and libraries made to exhaust whoever reads them; every one must be refused."""
    zeros = b"\0" * (400 << 20)
    library = "bitsandbytes/libbitsandbytes_cuda126.so"
    sound = binaries.wheel({library: binaries.elf()})
    bomb = binaries.wheel({library: zeros})
    nested = binaries.wheel({f"bitsandbytes/{number}.so": zeros[: 60 << 20] for number in range(20)})
    end = sound.rindex(b"PK\x05\x06")
    directory = sound.index(b"PK\x01\x02")
    several = binaries.wheel({f"bitsandbytes/lib{number}.so": b"x" * 4096 for number in range(50)})
    first = several.index(b"PK\x01\x02")
    overlapping = bytearray(several)
    at = first
    while overlapping[at : at + 4] == b"PK\x01\x02":
        overlapping[at + 20 : at + 24] = struct.pack("<I", len(several) // 2)  # packed: half the archive each
        lengths = struct.unpack_from("<HHH", overlapping, at + 28)
        at += 46 + sum(lengths)

    def patched(data: bytes, offset: int, shape: str, value: int) -> bytes:
        changed = bytearray(data)
        struct.pack_into(shape, changed, offset, value)
        return bytes(changed)

    elf = binaries.elf(needed=("libc.so.6",), sections={".nv_fatbin": binaries.fatbin(("cubin", 86))})
    return {
        "400 MB of zeros in a few KB": bomb,
        "many members of zeros": nested,
        "members that share their bytes": bytes(overlapping),
        "a member that declares 4 GB": patched(sound, directory + 24, "<I", 0xFFFFFFF0),
        "a directory beyond the end": patched(sound, end + 16, "<I", 0x7FFFFFFF),
        "a directory of 4 GB": patched(sound, end + 12, "<I", 0xFFFFFFF0),
        "a local header beyond the end": patched(sound, directory + 42, "<I", 0x7FFFFFFF),
        "library: a section table at 2^63": patched(elf, 40, "<Q", 2**63 - 1),
        "library: 65535 sections": patched(elf, 60, "<H", 0xFFFF),
        "library: section names in no section": patched(elf, 62, "<H", 0xFFFF),
        "library: a fatbin of 2^63 bytes": elf.replace(
            binaries.fatbin(("cubin", 86))[:16], binaries.fatbin(("cubin", 86))[:8] + struct.pack("<Q", 2**63)
        ),
    }


def read_model(kind: str, directory: Path, data: bytes) -> None:
    """Weigh a model of which one file is `data`, and count again what is answered."""
    name = models()[kind][0]
    (directory / name).write_bytes(data)
    checkpoint = read_checkpoint(directory)
    if kind == "config":
        inventory = take_inventory(checkpoint.config, load("model_types").model_types, transformers="5.23")
        for trains in (True, False):
            use = Use(quantisation=Quantisation(scheme="nf4"), trains=trains)
            found = estimate(inventory, use)
            json.dumps([part.bytes for part in found.parts], allow_nan=False)
            if min(part.bytes for part in found.parts) < 0 or found.peak < found.weights:
                raise AssertionError("a figure below what it holds")
        if inventory.model_type == "llama" and inventory.elements != counted(checkpoint.config):
            raise AssertionError(f"{inventory.elements} parameters, and {counted(checkpoint.config)} by hand")
    elif kind == "index":
        named = set(json.loads(data)["weight_map"].values())
        if [f"{it.name}.safetensors" for it in checkpoint.tensors] != sorted(named):
            raise AssertionError("other tensors than those of the files that it names")
    else:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        bits = sum(WIDTHS[entry["dtype"]] * math.prod(entry["shape"]) for entry in header.values())
        if bits != 8 * (len(data) - 8 - length) or bits != 8 * sum(it.bytes for it in checkpoint.tensors):
            raise AssertionError("another size than the file's")


def counted(config: Any) -> int:
    """The parameters of a Llama, as a person would count them."""
    hidden, inner, heads = (
        config[f"{name}"] for name in ("hidden_size", "intermediate_size", "num_attention_heads")
    )
    groups = config.get("num_key_value_heads") or heads
    width = config.get("head_dim") or hidden // heads
    attention = 2 * hidden * heads * width + 2 * hidden * groups * width
    feed_forward = 3 * hidden * inner + (2 * inner + hidden if config.get("mlp_bias") else 0)
    layers = config["num_hidden_layers"] * (attention + feed_forward + 2 * hidden)
    ends = config["vocab_size"] * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return int(layers + ends + hidden)


def model_bombs(root: Path) -> dict[str, Path]:
    """Models made to exhaust, to mislead or to stop whoever reads them; every one must be refused."""
    found: dict[str, Path] = {}

    def model(what: str) -> Path:
        found[what] = root / f"bomb{len(found)}"
        found[what].mkdir()
        (found[what] / CONFIG).write_text(json.dumps(MODEL), encoding="utf-8")
        return found[what]

    def header(what: str, text: bytes, *, claimed: int | None = None, size: int = 0) -> None:
        with (model(what) / SINGLE).open("wb") as file:
            file.write((len(text) if claimed is None else claimed).to_bytes(8, "little") + text)
            file.truncate(max(size, file.tell()))

    header("a header of 3 GB", b"{", claimed=3 * 10**9, size=4 * 10**9)
    header("a header of 2^63 bytes", b"{", claimed=2**63)
    header("a header of 99 MB of brackets", b"[" * 99_000_000)
    header("a header of one name, a million times", b"{" + b'"a":{},' * 1_000_000 + b'"a":{}}')
    header("a shape of 10^6 dimensions", b'{"a":{"dtype":"U8","shape":[' + b"1," * 10**6 + b"1]}}")
    header("a number of 10^6 digits", b'{"a":{"dtype":"U8","shape":[' + b"9" * 10**6 + b"]}}")
    for name in ("../a.safetensors", "/a.safetensors", "..\\a.safetensors", "a" * 5000 + ".safetensors"):
        places = {"weight_map": {"a": name}}
        (model(f"an index that names {name[:20]}") / INDEX).write_text(json.dumps(places), encoding="utf-8")
    places = {"weight_map": {str(at): f"{at}.safetensors" for at in range(500_000)}}
    (model("an index of half a million files") / INDEX).write_text(json.dumps(places), encoding="utf-8")
    for what, wider in (
        ("a configuration of a deep nest", '{"a":' * 500_000),
        ("a configuration of 2^31 layers", json.dumps({**MODEL, "num_hidden_layers": 2**31})),
        ("a configuration of more heads than width", json.dumps({**MODEL, "num_attention_heads": 10**9})),
    ):
        (model(what) / CONFIG).write_text(wider, encoding="utf-8")
    with (model("a configuration of 10 GB") / CONFIG).open("wb") as file:
        file.truncate(10**10)
    if hasattr(os, "mkfifo"):
        for what, target in (("a configuration without end", "/dev/zero"), ("a link to itself", CONFIG)):
            (model(what) / CONFIG).unlink()
            (found[what] / CONFIG).symlink_to(target)
        (model("a configuration that never comes") / CONFIG).unlink()
        os.mkfifo(found["a configuration that never comes"] / CONFIG)
    return found


def read(kind: str, name: str, data: bytes) -> None:
    """Read it as the matrix would."""
    if kind == "wheel":
        measure_bitsandbytes(Memory(data), Published("0", ""))
    else:
        measure_library(name, data)


def judge(action: Callable[[], None], name: str) -> str:
    """``answered``, ``refused``, or what went wrong."""
    start = time.perf_counter()
    try:
        action()
        outcome = "answered"
    except BnbenvError as error:
        outcome = (
            "refused" if name.removesuffix(".whl") in error.message else f"names no file: {error.message}"
        )
    except Exception as error:  # noqa: BLE001 - finding these is the purpose
        outcome = f"{type(error).__name__}: {error}"
    if time.perf_counter() - start > LONGEST:
        return f"took longer than {LONGEST} s"
    return outcome


def fuzz(
    proof: Proof, kind: str, name: str, sound: bytes, options: argparse.Namespace, directory: Path
) -> bool:
    """Damage one kind of file as often as asked; false where the sound file is not answered."""
    start = time.perf_counter()
    directory.mkdir()
    model = kind in models()
    if model:
        (directory / CONFIG).write_text(json.dumps(MODEL), encoding="utf-8")
        for part in ("first", "second") if kind == "index" else ():
            (directory / f"{part}.safetensors").write_bytes(tensors(part))

    def outcome(data: bytes) -> str:
        return judge(lambda: read_model(kind, directory, data) if model else read(kind, name, data), name)

    if (found := outcome(sound)) != "answered":
        print(f"{kind}: the sound file is {found}", file=sys.stderr)
        return False
    chance = random.Random(f"{options.seed} {kind}")
    counts: dict[str, int] = {}
    misses: list[str] = []
    for number in range(options.cases):
        damaged = damage_meaning(kind, sound, chance) if model and number % 2 else damage(sound, chance)
        found = outcome(damaged)
        if found in ("answered", "refused"):
            counts[found] = counts.get(found, 0) + 1
        else:
            misses.append(f"case {number}: {found}")
    proof.add(
        kind, {"cases": options.cases, **counts, "misses": misses[:20]}, seconds=time.perf_counter() - start
    )
    proof.misses += [f"{kind} {miss}" for miss in misses]
    print(f"{kind}: {counts}, {len(misses)} misses {misses[:3]}", file=sys.stderr)
    return True


def bombs_of_wheels() -> Iterator[tuple[str, str, Callable[[], None]]]:
    """What each is, the name that an error must tell, and what reads it."""
    for what, data in bombs().items():
        kind = "library" if what.startswith("library") else "wheel"
        name = "libbomb_cuda126.so" if kind == "library" else WHEEL
        yield what, name, lambda kind=kind, name=name, data=data: read(kind, name, data)  # type: ignore[misc]


def bombs_of_models(root: Path) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """As above."""

    def weigh(directory: Path) -> None:
        config = read_checkpoint(directory).config
        take_inventory(config, load("model_types").model_types, transformers="5.23")

    for what, directory in model_bombs(root).items():
        file = next((it for it in (SINGLE, INDEX) if (directory / it).exists()), CONFIG)
        yield what, file, lambda directory=directory: weigh(directory)  # type: ignore[misc]


def exhaust(proof: Proof, row: str, all_of_them: Iterable[tuple[str, str, Callable[[], None]]]) -> None:
    """Each must be refused."""
    start = time.perf_counter()
    refused: list[str] = []
    astray: list[str] = []
    for what, name, action in all_of_them:
        outcome = judge(action, name)
        if outcome == "refused":
            refused.append(what)
        else:
            astray.append(f"{what}: {outcome}")
    proof.add(
        row,
        {"cases": len(refused) + len(astray), "refused": refused, "misses": astray},
        seconds=time.perf_counter() - start,
    )
    proof.misses += astray
    print(f"{row}: {len(refused)} refused, misses {astray}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="of each kind (default: 20000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-record", action="store_true", help="write nothing to tests/proofs")
    options = parser.parse_args()

    proof = Proof(name="prove_readers", covered=cover(COVERED))
    proof.circumstances = {"python": platform.python_version(), "seed": str(options.seed)}
    with tempfile.TemporaryDirectory(prefix="bnbenv-readers-") as scratch:
        for kind, (name, sound) in {**seeds(), **models()}.items():
            if not fuzz(proof, kind, name, sound, options, Path(scratch, kind)):
                return 1
        exhaust(proof, "made to exhaust", bombs_of_wheels())
        exhaust(proof, "models made to exhaust", bombs_of_models(Path(scratch)))
    proof.counts = {
        "cases": sum(row["cases"] for key, row in proof.rows.items() if "exhaust" not in key),
        "misses": len(proof.misses),
    }
    proof.complete = True
    if not options.no_record:
        save(proof)
    return 1 if proof.misses else 0


if __name__ == "__main__":
    sys.exit(main())
