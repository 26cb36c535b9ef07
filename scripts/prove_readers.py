"""Damages real headers in thousands of ways: each reader must answer or say which file is damaged, and where.

Starts from small libraries and wheels with real headers (tests/matrix/binaries.py), changes bytes, cuts,
swaps stretches and plants absurd numbers, and reads the result. Any exception but the tree's own, an error
that does not name the file, or a case of more than two seconds is a miss. Then come archives and libraries
made by hand to exhaust their reader: each of them must be refused.

    python scripts/prove_readers.py [--cases N] [--seed N]
"""

from __future__ import annotations

import argparse
import importlib
import platform
import random
import struct
import sys
import time
from typing import TYPE_CHECKING

from _proof import ROOT, Proof, cover, save
from bnbenv.errors import BnbenvError
from bnbenv.matrix.measure import Published, measure_bitsandbytes, measure_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    "tests/matrix/binaries.py",
    "scripts/prove_readers.py",
)
LONGEST = 2.0  # seconds a case
ABSURD = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1, 2**64 - 1)
WHEEL = "bitsandbytes-9.9.9-py3-none-any.whl"


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="of each kind (default: 20000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-record", action="store_true", help="write nothing to tests/proofs")
    options = parser.parse_args()

    proof = Proof(name="prove_readers", covered=cover(COVERED))
    proof.circumstances = {"python": platform.python_version(), "seed": str(options.seed)}
    for kind, (name, sound) in seeds().items():
        start = time.perf_counter()
        if (outcome := judge(lambda: read(kind, name, sound), name)) != "answered":  # noqa: B023
            print(f"{kind}: the sound file is {outcome}", file=sys.stderr)
            return 1
        chance = random.Random(f"{options.seed} {kind}")
        counts: dict[str, int] = {}
        misses: list[str] = []
        for number in range(options.cases):
            data = damage(sound, chance)
            outcome = judge(lambda: read(kind, name, data), name)  # noqa: B023
            if outcome in ("answered", "refused"):
                counts[outcome] = counts.get(outcome, 0) + 1
            else:
                misses.append(f"case {number}: {outcome}")
        proof.add(
            kind,
            {"cases": options.cases, **counts, "misses": misses[:20]},
            seconds=time.perf_counter() - start,
        )
        proof.misses += [f"{kind} {miss}" for miss in misses]
        print(f"{kind}: {counts}, {len(misses)} misses {misses[:3]}", file=sys.stderr)
    start = time.perf_counter()
    refused: list[str] = []
    astray: list[str] = []
    for what, data in bombs().items():
        kind = "library" if what.startswith("library") else "wheel"
        name = "libbomb_cuda126.so" if kind == "library" else WHEEL
        outcome = judge(lambda: read(kind, name, data), name)  # noqa: B023
        if outcome == "refused":
            refused.append(what)
        else:
            astray.append(f"{what}: {outcome}")
    proof.add(
        "made to exhaust",
        {"cases": len(refused) + len(astray), "refused": refused, "misses": astray},
        seconds=time.perf_counter() - start,
    )
    proof.misses += astray
    print(f"made to exhaust: {len(refused)} refused, misses {astray}", file=sys.stderr)
    proof.counts = {"cases": options.cases * len(seeds()), "misses": len(proof.misses)}
    proof.complete = True
    if not options.no_record:
        save(proof)
    return 1 if proof.misses else 0


if __name__ == "__main__":
    sys.exit(main())
