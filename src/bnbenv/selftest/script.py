"""Does bitsandbytes compute rightly on one device? Every answer is compared with a float64 reference.

A program of its own: it runs inside the environment that is tested, with that environment's Python
(3.9 or newer), and imports nothing but the standard library, torch and bitsandbytes::

    python -I -B script.py --device cpu --level quick --events events.jsonl

Each check writes a line before it starts and one when it has ended, flushed, so that a crash names the
check that caused it. The references are written from the published definitions (QLoRA, LLM.int8(),
8-bit optimisers and the papers of the update rules), never from the library's code.

A check is `not-offered` only where the library lacks the name asked for, where it or torch's dispatcher
says so in words listed under `REFUSALS`, or where a layer stays unquantised on a device other than CUDA.
Every other exception is a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import math
import os
import platform
import re
import statistics
import sys
import sysconfig
import time
import traceback
import warnings
import zlib

SCHEMA = 1
F32, F16, BF16 = "float32", "float16", "bfloat16"
DTYPES = (F32, F16, BF16)
# Half the distance between neighbouring numbers, relative: what one rounding may cost.
ROUNDOFF = {F32: 2.0**-24, F16: 2.0**-11, BF16: 2.0**-8}
SMALLEST = {F32: 2.0**-149, F16: 2.0**-24, BF16: 2.0**-133}

# The NormalFloat4 levels as printed in appendix E of the QLoRA paper (arXiv 2305.14314).
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
# FP4 by bit pattern: one sign bit, then these eight magnitudes, in twelfths.
_FP4_TWELFTHS = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
FP4 = tuple(v / 12.0 for v in _FP4_TWELFTHS) + tuple(-v / 12.0 for v in _FP4_TWELFTHS)
BOOKS = {"nf4": NF4, "fp4": FP4}
BLOCKSIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
NESTED_BLOCK = 256  # of the second level: QLoRA, section 3, "Double Quantization"


def nf4_levels():
    """The levels again, from their definition: quantiles of N(0, 1), eight positive, seven negative, zero."""
    outer = 1.0 - 0.5 * (1.0 / 32.0 + 1.0 / 30.0)
    quantile = statistics.NormalDist().inv_cdf

    def side(count):
        return [quantile(outer + (0.5 - outer) * i / count) for i in range(count)]

    positive, negative = side(8), side(7)
    top = max(positive)
    return tuple(sorted([v / top for v in positive] + [-v / top for v in negative] + [0.0]))


def dynamic_map(signed=True):
    """The 256 levels of the dynamic 8-bit type (arXiv 1511.04561, 2110.02861), ascending.

    Seven decades; decade i is cut into 2**i (unsigned: 2**(i+1)) equal steps from 0.1 to 1 and the
    middle of each step is a level; then zero and one.
    """
    levels = [0.0, 1.0]
    for decade in range(7):
        steps = 2**decade if signed else 2 ** (decade + 1)
        for i in range(steps):
            middle = 10.0 ** (decade - 6) * (0.1 + 0.9 * (i + 0.5) / steps)
            levels += [middle, -middle] if signed else [middle]
    if not signed:
        # 254 steps and the two ends
        assert len(levels) == 256
    return tuple(sorted(levels))


class NotOffered(Exception):
    """This version or device does not have what the check needs."""


class ContextLost(Exception):
    """The device's context is lost: a fresh process must go on with the next check."""


class Wrong(Exception):
    """A result that cannot be expressed as a deviation: a shape, a missing gradient."""


# What an exception must be to mean `not-offered`: its type, what its text (or, without text, its source line)
# must hold, the function that must have raised it ("" for any), the device ("" for any), and the meaning.
REFUSALS = (
    (NotImplementedError, r"Could not run 'bitsandbytes::", "", "", "torch's dispatcher has no implementation for this device"),
    (NotImplementedError, r"not (supported|implemented)", "", "", "the library says that it is not implemented"),
    (ValueError, r"Gradient\+optimizer bit data type combination not supported", "", "", "no kernel for this gradient dtype"),
    (ValueError, r"Unsupported optimizer (name|for CPU)", "", "", "no kernel of this width for this optimiser"),
    # torch._check in the library's own argument checks raises RuntimeError; older releases assert
    ((ValueError, RuntimeError), r"invalid blocksize|divisible by blocksize", "", "", "the library refuses the block size"),
    (AssertionError, r"blocksize in ", "", "", "the library refuses the block size"),
    (RuntimeError, r"must be \w+ on cpu, got|on CPU only supports uint8 storage", "", "cpu", "the library refuses the type on a CPU"),
    # 0.46 to 0.49 refuse CPU tensors in optimisers; formatting the refusal fails where a moment is None
    ((RuntimeError, AttributeError), r"same GPU|has no attribute 'shape'", "is_on_gpu", "cpu", "the library's optimisers want a GPU"),
)


def refusal(error, device):
    """Why the exception means `not-offered`, or None."""
    frames = traceback.extract_tb(error.__traceback__)
    text = str(error) or (frames[-1].line if frames else "") or ""
    for kind, pattern, raised_by, only_on, meaning in REFUSALS:
        if only_on and only_on != device.split(":")[0]:
            continue
        if raised_by and (not frames or frames[-1].name not in (raised_by, "<listcomp>") or raised_by not in {f.name for f in frames}):
            continue
        if isinstance(error, kind) and re.search(pattern, text, re.IGNORECASE):
            return meaning
    return None


def poisoned(error):
    """Whether the device's context is lost, so that every later call would fail too."""
    return bool(re.search(r"CUDA error|HIP error|illegal memory access|device-side assert|cudaError", str(error)))


def first_line(error):
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else ''}"


class Events:
    """One JSON object a line, on disk before the next call can crash."""

    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, **event):
        self.file.write(json.dumps(event, default=str, allow_nan=False) + "\n")
        self.file.flush()


class Session:
    """The device under test, and the checks that run on it."""

    def __init__(self, events, device, level, only=None, first=0):
        self.events, self.device_name, self.level = events, device, level
        self.only, self.first = only, first
        self.count = 0
        self.states = {}
        self.asked = {}
        self.torch = self.bnb = self.F = self.device = None

    @property
    def full(self):
        return self.level == "full"

    def sync(self):
        backend = getattr(self.torch, self.device.type, None)
        if self.device.type != "cpu" and hasattr(backend, "synchronize"):
            backend.synchronize()

    def timed(self, call):
        """The call's result and its milliseconds, device included."""
        self.sync()
        start = time.perf_counter()
        result = call()
        self.sync()
        self.ms = (time.perf_counter() - start) * 1e3
        return result

    def check(self, name, dtype, shape, body):
        """Runs `body`, which returns (error, tolerance) or (error, tolerance, detail)."""
        self.count += 1
        if self.count <= self.first or (self.only and not re.search(self.only, name)):
            return None
        case = {"index": self.count, "name": name, "dtype": dtype, "shape": shape}
        self.events.write(event="begin", **case)
        self.ms, lost = None, False
        result = {"state": "failed", "error": None, "tolerance": None, "detail": None}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                error, tolerance, *rest = body()
            finite = isinstance(error, (int, float)) and math.isfinite(error)
            result["error"] = float(error) if finite else None
            result["tolerance"] = float(tolerance)
            result["detail"] = rest[0] if rest else None if finite else "the result is not finite"
            if finite and error <= tolerance:
                result["state"] = rest[1] if len(rest) > 1 else "passed"
        except NotOffered as error:
            result.update(state="not-offered", detail=str(error))
        except Wrong as error:
            result["detail"] = str(error)
        except Exception as error:  # noqa: BLE001 - whatever the library raises is this check's result
            meaning = refusal(error, self.device_name)
            lost = poisoned(error)
            result["detail"] = first_line(error)
            if meaning:
                result.update(state="not-offered", detail=f"{meaning} ({first_line(error)})")
            else:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                result["detail"] += f" [{os.path.basename(frame.filename)}:{frame.lineno}]"
        self.states[result["state"]] = self.states.get(result["state"], 0) + 1
        self.events.write(event="end", **case, ms=self.ms, **result)
        if lost:
            raise ContextLost
        return result["state"]

    # -- material -------------------------------------------------------------------------------------

    def dtype(self, name):
        return getattr(self.torch, name)

    def generator(self, *key):
        return self.torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))

    def data(self, rows, cols, block, dtype, spread=2.0, salt=""):
        """Normal numbers whose scale changes from block to block by up to 10**(2*spread).

        Uniform data hide real faults: a value scaled by its neighbour's absmax looks right.
        """
        torch = self.torch
        generator = self.generator(rows, cols, block, salt)
        count = rows * cols
        blocks = -(-count // block)
        scales = 10.0 ** ((torch.rand(blocks, generator=generator, dtype=torch.float64) * 2 - 1) * spread)
        values = torch.randn(count, generator=generator, dtype=torch.float64)
        values *= scales.repeat_interleave(block)[:count]
        return values.reshape(rows, cols).to(self.dtype(dtype))

    def need(self, owner, name):
        found = getattr(owner, name, None)
        if found is None:
            raise NotOffered(f"{owner.__name__} has no `{name}`")
        return found

    def quantizes(self, count, block, quant_type):
        """Asks the library once whether it makes such a quantised tensor at all: without, nobody can hold one."""
        key = (count, block, quant_type)
        if key not in self.asked:
            try:
                self.F.quantize_4bit(self.torch.ones(count, device=self.device), blocksize=block, quant_type=quant_type)
                self.asked[key] = None
            except Exception as error:  # noqa: BLE001 - only a refusal is remembered; a fault is the quantiser's check
                self.asked[key] = refusal(error, self.device_name)
        if self.asked[key]:
            raise NotOffered(f"the library does not quantise this: {self.asked[key]}")

    # -- references (float64, on the CPU) -------------------------------------------------------------

    def book(self, values):
        return self.torch.tensor(values, dtype=self.torch.float64)

    def absmax(self, flat, block):
        """The largest magnitude of each block of a flat float64 tensor; the last block may be short."""
        torch = self.torch
        pad = -flat.numel() % block
        return torch.nn.functional.pad(flat.abs(), (0, pad)).reshape(-1, block).amax(1)

    def spread(self, per_block, block, count):
        return per_block.repeat_interleave(block)[:count]

    def nearest(self, scaled, book):
        """The index of the nearest level, and how far it is."""
        torch = self.torch
        ordered, order = torch.sort(book, stable=True)
        at = torch.searchsorted((ordered[:-1] + ordered[1:]) / 2, scaled)
        return order[at], (ordered[at] - scaled).abs()

    def pack(self, codes):
        """Two 4-bit codes a byte, the first in the high half."""
        torch = self.torch
        codes = torch.nn.functional.pad(codes, (0, codes.numel() % 2)).to(torch.uint8)
        return ((codes[::2] << 4) | codes[1::2]).reshape(-1, 1)

    def unpack(self, packed, count):
        torch = self.torch
        data = packed.detach().cpu().contiguous().view(torch.uint8).reshape(-1).to(torch.int64)
        return torch.stack((data >> 4, data & 15), 1).reshape(-1)[:count]

    def decode(self, packed, state):
        """The float64 weight that a library's packed 4-bit tensor and its quantisation state stand for."""
        torch = self.torch
        count = math.prod(state.shape)
        per_block = state.absmax.detach().cpu()
        if state.state2 is not None:
            book2 = self.book(dynamic_map())
            second = state.state2.absmax.detach().cpu().double()
            per_block = book2[per_block.to(torch.int64)] * self.spread(second, NESTED_BLOCK, per_block.numel())
            per_block = per_block + float(state.offset)
        scale = self.spread(per_block.double(), state.blocksize, count)
        values = self.book(BOOKS[state.quant_type])[self.unpack(packed, count)]
        return (values * scale).reshape(tuple(state.shape))

    def code_excess(self, scaled, codes, book, where=None):
        """How much farther the chosen levels are than the nearest ones, at worst.

        Zero for a perfect quantiser; a little above zero where a value stands on a decision edge.
        """
        _, best = self.nearest(scaled, book)
        excess = (book[codes] - scaled).abs() - best
        if where is not None:
            excess = excess[where]
        return float(excess.max()) if excess.numel() else 0.0

    def ulps(self, got, want, dtype):
        """The largest deviation in units of what one rounding to `dtype` may cost."""
        got = got.detach().cpu().double()
        if tuple(got.shape) != tuple(want.shape):
            raise Wrong(f"the result has shape {tuple(got.shape)}, not {tuple(want.shape)}")
        unit = want.abs() * ROUNDOFF[dtype] + SMALLEST[dtype]
        return float(((got - want).abs() / unit).max())

    def state_of(self, absmax, shape, block, quant_type, dtype, **more):
        code = self.book(BOOKS[quant_type]).float().to(self.device)
        return self.F.QuantState(
            absmax=absmax.to(self.device), shape=self.torch.Size(shape), code=code, blocksize=block,
            quant_type=quant_type, dtype=self.dtype(dtype), **more,
        )  # fmt: skip

    def reference_4bit(self, weight, block, quant_type):
        """Codes and absmax of a tensor after the definition: scale each block by its absmax, take the nearest."""
        flat = weight.double().reshape(-1)
        per_block = self.absmax(flat, block)
        scale = self.spread(per_block, block, flat.numel())
        safe = self.torch.where(scale == 0, self.torch.ones_like(scale), scale)
        codes, _ = self.nearest(flat / safe, self.book(BOOKS[quant_type]))
        return codes, per_block

    def reference_nested(self, per_block):
        """Second level: the mean is taken off, the rest is stored in the dynamic 8-bit type by blocks of 256."""
        offset = per_block.float().mean().double()
        rest = per_block - offset
        second = self.absmax(rest, NESTED_BLOCK)
        codes, _ = self.nearest(rest / self.spread(second, NESTED_BLOCK, rest.numel()), self.book(dynamic_map()))
        return codes, second, offset

    def nested_state(self, per_block, shape, block, quant_type, dtype):
        torch = self.torch
        codes, second, offset = self.reference_nested(per_block)
        book = self.book(dynamic_map()).float().to(self.device)
        state2 = self.F.QuantState(
            absmax=second.float().to(self.device), code=book, blocksize=NESTED_BLOCK, dtype=torch.float32
        )
        return self.state_of(
            codes.to(torch.uint8), shape, block, quant_type, dtype,
            offset=offset.float().to(self.device), state2=state2,
        )  # fmt: skip


# -- 4-bit: quantise and dequantise ------------------------------------------------------------------------

EDGE_4BIT = 1e-4  # of the block's absmax; some decision edges are constants of few digits
ROUNDINGS = 3.1  # level, scale and product may each be rounded to the dtype (0.48 and older do)
EDGE_8BIT = 4e-5  # the CPU kernel finds its level through a table of 65536 entries


def check_books(s):
    """The levels themselves: printed table against definition, and the library's tables against both."""
    torch = s.torch

    def derived():
        return max(abs(a - b) for a, b in zip(nf4_levels(), NF4)), 1e-6

    def library(values, made):
        got = s.need(s.F, made[0])(*made[1:]) if len(made) > 1 else s.need(s.F, made[0])()
        got = got.double().cpu()
        want = s.book(values)
        if got.numel() != want.numel():
            raise Wrong(f"{got.numel()} levels instead of {want.numel()}")
        return float(((got - want).abs() / want.abs().clamp(min=1e-12)).max()), 1e-6

    s.check("levels/nf4/definition", "", {}, derived)
    for quant_type, values in BOOKS.items():
        s.check(f"levels/{quant_type}/library", "", {}, lambda v=values, q=quant_type: library(v, ("get_4bit_type", q, torch.device("cpu"))))
    s.check("levels/dynamic/library", "", {"signed": 1}, lambda: library(dynamic_map(), ("create_dynamic_map", True)))
    s.check("levels/dynamic/library", "", {"signed": 0}, lambda: library(dynamic_map(False), ("create_dynamic_map", False)))


def shapes_4bit(s, block):
    """Rows and columns: multiples of nothing, of 16, of 32, of the block size; one row and more."""
    quick = [(1, 2 * block), (3, block), (2, block + 32), (5, block + 2)]
    if not s.full:
        return quick
    return quick + [(1, block + 32), (2, block + 16), (4, 2 * block + 48), (33, 96), (4, 720), (7, 34), (3, 33), (1, 16)]


def cases_4bit(s):
    """(block size, rows, columns, dtypes): every block size, and a matrix with as many blocks as a small layer's.

    Blocks of 2048 and more are left to the full level: without AVX-512 or a GPU they are compiled first.
    """
    for block in BLOCKSIZES:
        for shape in shapes_4bit(s, block) if s.full or block in (64, 128) else [(3, 2 * block)] if block < 2048 else []:
            yield (block, *shape, DTYPES)
    yield 64, 256, 2048, (BF16,)


def check_quantize_4bit(s):
    def body(rows, cols, block, quant_type, dtype):
        weight = s.data(rows, cols, block, dtype)
        if rows > 1:
            weight.view(-1)[: min(block, cols)] = 0  # a block of zeros must stay one
        call = s.need(s.F, "quantize_4bit")
        packed, state = s.timed(lambda: call(weight.to(s.device), blocksize=block, quant_type=quant_type))
        flat = weight.double().reshape(-1)
        per_block = s.absmax(flat, block)
        got = state.absmax.cpu().double()
        if got.numel() != per_block.numel():
            raise Wrong(f"{got.numel()} block scales instead of {per_block.numel()}")
        if bool(((got - per_block).abs() > per_block * 1e-6 + 1e-37).any()):
            raise Wrong("a block's absmax is wrong")
        asked = (block, quant_type, (rows, cols), weight.dtype)
        if (state.blocksize, state.quant_type, tuple(state.shape), state.dtype) != asked:
            raise Wrong("the quantisation state does not say what was asked for")
        scale = s.spread(per_block, block, flat.numel())
        alive = scale > 0
        scaled = flat / s.torch.where(alive, scale, s.torch.ones_like(scale))
        return s.code_excess(scaled, s.unpack(packed, flat.numel()), s.book(BOOKS[quant_type]), alive), EDGE_4BIT + ROUNDOFF[dtype]

    def odd(how, quant_type, dtype):
        """A tensor that does not lie in one piece; another storage type, as FSDP needs it: the bytes stay the same."""
        rows, cols, block = 6, 128, 64
        weight = s.data(rows, cols, block, dtype, salt=how)
        codes, _ = s.reference_4bit(weight, block, quant_type)
        given = weight.t().contiguous().t() if how == "strided" else weight
        more = {} if how == "strided" else {"quant_storage": torch.bfloat16}
        packed, state = s.timed(lambda: s.F.quantize_4bit(given.to(s.device), blocksize=block, quant_type=quant_type, **more))
        if more and packed.dtype != torch.bfloat16:
            raise Wrong(f"the packed weight is {packed.dtype}")
        back = s.F.dequantize_4bit(packed, state).detach().cpu().double()
        scale = s.spread(s.absmax(weight.double().reshape(-1), block), block, weight.numel())
        # How exactly it is unpacked is the other checks' question.
        if bool(((back - s.decode(packed, state)).abs().reshape(-1) > scale * 0.02).any()):
            raise Wrong("what was packed is not unpacked")
        scaled = weight.double().reshape(-1) / scale
        return s.code_excess(scaled, s.unpack(packed, codes.numel()), s.book(BOOKS[quant_type])), EDGE_4BIT + ROUNDOFF[dtype]

    torch = s.torch
    for quant_type in BOOKS:
        for block, rows, cols, dtypes in cases_4bit(s):
            for dtype in dtypes:
                shape = {"rows": rows, "cols": cols, "blocksize": block}
                s.check(f"quantize_4bit/{quant_type}/b{block}", dtype, shape,
                        lambda a=(rows, cols, block, quant_type, dtype): body(*a))  # fmt: skip
        for how in ("strided", "storage"):
            for dtype in DTYPES:
                s.check(f"quantize_4bit/{quant_type}/{how}", dtype, {"rows": 6, "cols": 128, "blocksize": 64},
                        lambda a=(how, quant_type, dtype): odd(*a))  # fmt: skip


def check_dequantize_4bit(s):
    def body(rows, cols, block, quant_type, dtype):
        s.quantizes(rows * cols, block, quant_type)
        weight = s.data(rows, cols, block, dtype)
        codes, per_block = s.reference_4bit(weight, block, quant_type)
        state = s.state_of(per_block.float(), (rows, cols), block, quant_type, dtype)
        packed = s.pack(codes).to(s.device)
        got = s.timed(lambda: s.F.dequantize_4bit(packed, state))
        want = (s.book(BOOKS[quant_type])[codes] * s.spread(per_block, block, codes.numel())).reshape(rows, cols)
        return s.ulps(got, want, dtype), ROUNDINGS, bad(s, got, want, dtype)

    def into(quant_type, dtype):
        """Into a tensor of the caller's."""
        weight = s.data(5, 128, 64, dtype)
        codes, per_block = s.reference_4bit(weight, 64, quant_type)
        state = s.state_of(per_block.float(), (5, 128), 64, quant_type, dtype)
        packed = s.pack(codes).to(s.device)
        out = s.torch.full((5, 128), 7.0, dtype=s.dtype(dtype), device=s.device)
        s.timed(lambda: s.F.dequantize_4bit(packed, state, out=out))
        want = s.decode(packed, state)
        return s.ulps(out, want, dtype), ROUNDINGS, bad(s, out, want, dtype)

    for quant_type in BOOKS:
        for block, rows, cols, dtypes in cases_4bit(s):
            for dtype in dtypes:
                shape = {"rows": rows, "cols": cols, "blocksize": block}
                s.check(f"dequantize_4bit/{quant_type}/b{block}", dtype, shape,
                        lambda a=(rows, cols, block, quant_type, dtype): body(*a))  # fmt: skip
        for dtype in DTYPES if s.full else ():
            s.check(f"dequantize_4bit/{quant_type}/out", dtype, {"rows": 5, "cols": 128, "blocksize": 64},
                    lambda a=(quant_type, dtype): into(*a))  # fmt: skip


def bad(s, got, want, dtype):
    """How many elements are off, in words, or None."""
    got = got.detach().cpu().double()
    off = ~((got - want).abs() <= want.abs() * ROUNDOFF[dtype] * 4 + SMALLEST[dtype])
    return f"{int(off.sum())} of {off.numel()} elements wrong" if bool(off.any()) else None


def check_nested(s):
    """Double quantisation of the block scales, with more than one second-level block."""
    torch = s.torch
    cases = [(20, 960, 64), (5, 64, 64)] if s.full else [(20, 960, 64)]

    def quantise(rows, cols, block, quant_type, dtype):
        weight = s.data(rows, cols, block, dtype)
        packed, state = s.timed(lambda: s.F.quantize_4bit(
            weight.to(s.device), blocksize=block, quant_type=quant_type, compress_statistics=True))  # fmt: skip
        _, per_block = s.reference_4bit(weight, block, quant_type)
        if state.state2 is None or state.offset is None:
            raise Wrong("no second level")
        if (state.blocksize, state.state2.blocksize) != (block, NESTED_BLOCK):
            raise Wrong("a block size is not the one asked for")
        offset = float(state.offset)
        mean = float(per_block.mean())
        if abs(offset - mean) > 1e-5 * mean:
            raise Wrong(f"the offset is {offset}, the mean of the block scales {mean}")
        rest = per_block.float().double() - offset
        second = s.absmax(rest, NESTED_BLOCK)
        got = state.state2.absmax.cpu().double()
        if got.numel() != second.numel() or bool(((got - second).abs() > second * 1e-5).any()):
            raise Wrong("a second-level absmax is wrong")
        scaled = rest / s.spread(second, NESTED_BLOCK, rest.numel())
        return s.code_excess(scaled, state.absmax.cpu().to(torch.int64), s.book(dynamic_map())), EDGE_8BIT

    def dequantise(rows, cols, block, quant_type, dtype):
        s.quantizes(rows * cols, block, quant_type)
        weight = s.data(rows, cols, block, dtype, salt="nested")
        codes, per_block = s.reference_4bit(weight, block, quant_type)
        state = s.nested_state(per_block, (rows, cols), block, quant_type, dtype)
        packed = s.pack(codes).to(s.device)
        got = s.timed(lambda: s.F.dequantize_4bit(packed, state))
        want = s.decode(packed, state)
        # The scale is a single-precision sum: near cancellation its error is that of its larger part.
        per = s.absmax(want.reshape(-1), block)
        slack = s.spread(per.clamp(min=float(state.offset) * 2.0**-22), block, want.numel()).reshape(want.shape)
        unit = want.abs() * ROUNDOFF[dtype] + slack * 2.0**-22 + float(state.offset) * 2.0**-22 + SMALLEST[dtype]
        error = float(((got.cpu().double() - want).abs() / unit).max())
        return error, ROUNDINGS

    for quant_type in BOOKS:
        for rows, cols, block in cases:
            for dtype in DTYPES:
                shape = {"rows": rows, "cols": cols, "blocksize": block, "nested": 1}
                s.check(f"quantize_4bit/{quant_type}/nested", dtype, shape,
                        lambda a=(rows, cols, block, quant_type, dtype): quantise(*a))  # fmt: skip
                s.check(f"dequantize_4bit/{quant_type}/nested", dtype, shape,
                        lambda a=(rows, cols, block, quant_type, dtype): dequantise(*a))  # fmt: skip


# -- 8-bit blockwise ----------------------------------------------------------------------------------------


def check_blockwise(s):
    torch = s.torch
    blocks = [block for block in BLOCKSIZES if block >= 64]
    counts = lambda block: (block, 3 * block + 17, 2 * block - 1) if s.full else (3 * block + 17,)  # noqa: E731

    def quantise(count, block, dtype, strided=0):
        values = s.data(1, count, block, dtype).reshape(-1)
        given = values.to(s.device)
        if strided:
            given = torch.stack((given, -given), 1)[:, 0]
        codes, state = s.timed(lambda: s.F.quantize_blockwise(given, blocksize=block))
        flat = values.double()
        per_block = s.absmax(flat, block)
        got = state.absmax.cpu().double()
        if got.numel() != per_block.numel() or bool(((got - per_block).abs() > per_block * 1e-6).any()):
            raise Wrong("a block's absmax is wrong")
        scaled = flat / s.spread(per_block, block, count)
        return s.code_excess(scaled, codes.cpu().to(torch.int64), s.book(dynamic_map())), EDGE_8BIT + ROUNDOFF[dtype]

    def dequantise(count, block, dtype):
        codes = torch.randint(0, 256, (count,), generator=s.generator(count, block))
        codes[:256] = torch.arange(256)[:count]  # every level at least once
        per_block = s.absmax(s.data(1, count, block, F32).double().reshape(-1), block)
        book = s.book(dynamic_map())
        state = s.F.QuantState(absmax=per_block.float().to(s.device), code=book.float().to(s.device),
                               blocksize=block, dtype=s.dtype(dtype))  # fmt: skip
        got = s.timed(lambda: s.F.dequantize_blockwise(codes.to(torch.uint8).to(s.device), state))
        want = book[codes] * s.spread(per_block, block, count)
        return s.ulps(got, want, dtype), ROUNDINGS

    for block in blocks:
        for count in counts(block):
            for dtype in DTYPES:
                shape = {"count": count, "blocksize": block}
                s.check(f"quantize_blockwise/b{block}", dtype, shape, lambda a=(count, block, dtype): quantise(*a))
                s.check(f"dequantize_blockwise/b{block}", dtype, shape, lambda a=(count, block, dtype): dequantise(*a))
    for dtype in DTYPES:
        shape = {"count": 785, "blocksize": 256, "strided": 1}
        s.check("quantize_blockwise/strided", dtype, shape, lambda d=dtype: quantise(785, 256, d, strided=1))


# -- products -------------------------------------------------------------------------------------------------


def product_error(got, left, right, want):
    """The largest deviation of a product, relative to the root of the sum of its squared terms."""
    norm = ((left.double() ** 2) @ (right.double() ** 2).t()).sqrt()
    return float(((got.detach().cpu().double() - want).abs() / (norm + want.abs() + 1e-30)).max())


# One rounding each of level, scale, product and result; single precision adds the summation.
PRODUCT = {F32: 96 * ROUNDOFF[F32], F16: 10 * ROUNDOFF[F16], BF16: 10 * ROUNDOFF[BF16]}

# (rows, in, out, blocksize)
# A square weight is the only one whose transpose has the right shape.
PRODUCTS_QUICK = ((1, 128, 64, 64), (5, 256, 96, 64), (3, 96, 40, 64), (2, 128, 33, 64), (3, 128, 128, 64))
PRODUCTS_FULL = PRODUCTS_QUICK + (
    (1, 720, 48, 64), (4, 720, 48, 64), (1, 512, 256, 128), (17, 512, 256, 32), (64, 1024, 128, 64),
    (130, 256, 160, 64), (1, 1024, 512, 1024), (9, 100, 36, 64), (600, 512, 72, 64), (1, 4096, 64, 4096),
)  # fmt: skip


def check_matmul_4bit(s):
    def body(rows, cols, outs, block, quant_type, dtype, nested, bias):
        s.quantizes(outs * cols, block, quant_type)
        weight = s.data(outs, cols, block, dtype, spread=1.0)
        codes, per_block = s.reference_4bit(weight, block, quant_type)
        if nested:
            state = s.nested_state(per_block, (outs, cols), block, quant_type, dtype)
        else:
            state = s.state_of(per_block.float(), (outs, cols), block, quant_type, dtype)
        packed = s.pack(codes)
        exact = s.decode(packed, state)
        packed = packed.to(s.device)
        left = s.data(rows, cols, 64, dtype, spread=0.5, salt="left")
        shift = s.data(1, outs, 64, dtype, spread=0.0, salt="bias").reshape(-1) * 8 if bias else None
        call = s.need(s.bnb, "matmul_4bit")
        with s.torch.no_grad():
            got = s.timed(lambda: call(
                left.to(s.device), packed.t(), quant_state=state, bias=shift.to(s.device) if bias else None))  # fmt: skip
        want = left.double() @ exact.t()
        if bias:
            want = want + shift.double()
        if tuple(got.shape) != tuple(want.shape):
            raise Wrong(f"the result has shape {tuple(got.shape)}, not {tuple(want.shape)}")
        return product_error(got, left, exact, want), PRODUCT[dtype]

    for rows, cols, outs, block in PRODUCTS_FULL if s.full else PRODUCTS_QUICK:
        for quant_type in BOOKS:
            for dtype in DTYPES:
                for nested, bias in ((0, 0), (1, 1)) if s.full else ((1, 1),):
                    shape = {"rows": outs, "cols": cols, "blocksize": block, "batch": rows, "nested": nested, "bias": bias}
                    s.check(f"matmul_4bit/{quant_type}", dtype, shape,
                            lambda a=(rows, cols, outs, block, quant_type, dtype, nested, bias): body(*a))  # fmt: skip


def sequences(values):
    """An even number of rows as two sequences whose rows do not lie in one piece, as models hand them on."""
    rows = values.shape[0]
    if rows % 2 or rows == 2:
        return values
    return values.reshape(2, rows // 2, -1).transpose(0, 1).contiguous().transpose(0, 1)


def rows_of(s, got, want):
    """The result as rows again; only its last dimension may differ from the input's."""
    if tuple(got.shape) != tuple(sequences(want).shape):
        raise Wrong(f"the result has shape {tuple(got.shape)}, not {tuple(sequences(want).shape)}")
    return got.reshape(want.shape)


def linear4bit(s, cols, outs, block_type, dtype, nested, bias):
    """A layer with known weights, quantised by the library as users do it."""
    torch = s.torch
    make = s.need(s.bnb.nn, "Linear4bit")
    weight = s.data(outs, cols, 64, dtype, spread=1.0, salt="layer")
    layer = make(cols, outs, bias=bool(bias), compute_dtype=s.dtype(dtype), quant_type=block_type,
                 compress_statistics=bool(nested))  # fmt: skip
    layer.weight = s.bnb.nn.Params4bit(weight, requires_grad=False, quant_type=block_type,
                                       compress_statistics=bool(nested), module=layer)  # fmt: skip
    shift = None
    if bias:
        shift = s.data(1, outs, 64, dtype, spread=0.0, salt="bias").reshape(-1) * 8
        layer.bias = torch.nn.Parameter(shift.clone())
    layer = layer.to(s.device)
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        if s.device.type == "cuda":
            raise Wrong("the layer was not quantised")
        raise NotOffered("the layer is not quantised on this device")
    exact = s.decode(layer.weight.data, state)
    # The library's own codes: the quantisers are judged elsewhere; here only that it is this weight.
    far = (exact - weight.double()).abs().reshape(-1)
    limit = s.spread(s.absmax(weight.double().reshape(-1), 64), 64, far.numel())
    limit = limit * 0.2 + (float(limit.max()) * 0.02 if nested else 0.0)
    if bool((far > limit).any()):
        raise Wrong("the packed weight does not stand for the weight that was given")
    return layer, exact, shift


def check_linear4bit(s):
    torch = s.torch

    def forward(rows, cols, outs, quant_type, dtype, nested, bias, training):
        layer, exact, shift = linear4bit(s, cols, outs, quant_type, dtype, nested, bias)
        layer.train(bool(training))
        left = s.data(rows, cols, 64, dtype, spread=0.5, salt="left")
        given = sequences(left).to(s.device)
        with contextlib.nullcontext() if training else torch.no_grad():
            got = s.timed(lambda: layer(given))
            again = layer(given)
        if got.dtype != s.dtype(dtype):
            raise Wrong(f"the result is {got.dtype}")
        want = left.double() @ exact.t()
        if bias:
            want = want + shift.double()
        errors = [product_error(rows_of(s, result, want), left, exact, want) for result in (got, again)]
        # Where the processor has AVX512-BF16 the layer repacks itself for a kernel that computes in bfloat16.
        repacked = getattr(layer.weight.quant_state, "packing_format_for_cpu", False)
        return max(errors), PRODUCT[BF16 if repacked else dtype]

    def backward(rows, cols, outs, quant_type, dtype, nested, bias, after_eval=0):
        layer, exact, shift = linear4bit(s, cols, outs, quant_type, dtype, nested, bias)
        left = s.data(rows, cols, 64, dtype, spread=0.5, salt="left")
        if after_eval:
            with torch.no_grad():
                layer.eval()(left.to(s.device))
        layer.train()
        given = sequences(left).to(s.device).requires_grad_()
        slope = s.data(rows, outs, 64, dtype, spread=0.5, salt="slope")
        before = layer.weight.data.clone()

        def run():
            layer(given).backward(sequences(slope).to(s.device))
            return given.grad

        got = s.timed(run)
        if got is None:
            raise Wrong("the input got no gradient")
        want = slope.double() @ exact
        got = rows_of(s, got, want)
        if not torch.equal(before, layer.weight.data):
            raise Wrong("the packed weight changed")
        error = product_error(got, slope, exact.t(), want)
        if bias:
            if layer.bias.grad is None:
                raise Wrong("the bias got no gradient")
            total = slope.double().sum(0)
            size = slope.double().abs().sum(0) + 1e-30
            error = max(error, float(((layer.bias.grad.cpu().double() - total).abs() / size).max()))
        return error, PRODUCT[dtype]

    def copied(quant_type, dtype, nested):
        """A deep copy computes the same, and goes on doing so when the original is changed."""
        layer, exact, _ = linear4bit(s, 128, 64, quant_type, dtype, nested, 0)
        twin = copy.deepcopy(layer)
        layer.weight.quant_state.absmax.zero_()
        layer.weight.data.zero_()
        difference = (s.decode(twin.weight.data, twin.weight.quant_state) - exact).abs().max().item()
        left = s.data(3, 128, 64, dtype, spread=0.5, salt="left")
        want = left.double() @ exact.t()
        return difference + product_error(twin.train()(left.to(s.device)), left, exact, want), PRODUCT[dtype]

    sizes = ((1, 128, 64), (5, 256, 96), (3, 96, 64), (4, 128, 40), (6, 128, 64))
    if s.full:
        sizes += ((1, 720, 64), (6, 720, 96), (2, 128, 33), (1, 100, 32), (33, 512, 256), (70, 256, 128))
    for rows, cols, outs in sizes:
        for quant_type in BOOKS if s.full else ("nf4",):
            for dtype in DTYPES:
                for nested, bias in ((1, 0), (0, 1)) if s.full or (cols, outs) == (128, 64) else ((1, 1),):
                    shape = {"rows": outs, "cols": cols, "blocksize": 64, "batch": rows, "nested": nested, "bias": bias}
                    key = (rows, cols, outs, quant_type, dtype, nested, bias)
                    s.check(f"linear4bit/{quant_type}/eval", dtype, shape, lambda a=key: forward(*a, 0))
                    s.check(f"linear4bit/{quant_type}/train", dtype, shape, lambda a=key: forward(*a, 1))
                    s.check(f"linear4bit/{quant_type}/backward", dtype, shape, lambda a=key: backward(*a))
    for quant_type in BOOKS if s.full else ("nf4",):
        for dtype in DTYPES:
            shape = {"rows": 64, "cols": 128, "blocksize": 64, "batch": 5, "nested": 1, "bias": 0, "after_eval": 1}
            key = (5, 128, 64, quant_type, dtype, 1, 0, 1)
            s.check(f"linear4bit/{quant_type}/backward-after-eval", dtype, shape, lambda a=key: backward(*a))
            for nested in (0, 1):
                s.check(f"linear4bit/{quant_type}/copied", dtype, {"rows": 64, "cols": 128, "blocksize": 64, "nested": nested},
                        lambda a=(quant_type, dtype, nested): copied(*a))  # fmt: skip


# -- int8 -----------------------------------------------------------------------------------------------------


def int8_rows(s, values, threshold=0.0):
    """Vector-wise int8 after LLM.int8() (arXiv 2208.07339): the scaled rows before rounding, scales, outlier columns."""
    torch = s.torch
    exact = values.to(torch.float16).double()  # the type is defined on half-precision inputs
    outlier = (exact.abs() >= threshold) if threshold else torch.zeros_like(exact, dtype=torch.bool)
    kept = torch.where(outlier, torch.zeros_like(exact), exact)
    columns = outlier.any(0)
    scale = kept.abs().amax(1)
    scaled = kept * (127.0 / scale.clamp(min=1e-30)).unsqueeze(1)
    if exact.shape[0] > 1:
        scaled = torch.where(columns.unsqueeze(0), torch.zeros_like(scaled), scaled)
    return scaled, scale, columns


def clear_of_edges(s, values, threshold=0.0):
    """The same values with those zeroed that stand so near a rounding edge that single precision may differ."""
    for _ in range(3):
        scaled, _, _ = int8_rows(s, values, threshold)
        near = ((scaled - scaled.floor()) - 0.5).abs() < 0.02
        values = values.masked_fill(near, 0.0)
    return values


def check_int8(s):
    torch = s.torch
    sizes = ((1, 64), (5, 96), (3, 72)) + (((33, 720), (2, 100), (4, 37), (17, 1024)) if s.full else ())

    def quantise(rows, cols, threshold):
        values = s.data(rows, cols, 64, F16, spread=0.3)
        if threshold:
            values = values.clamp(-5.5, 5.5)
            values[0, 3] = 40.0
            values[-1, cols // 2] = -7.0
        call = s.need(s.F, "int8_vectorwise_quant")
        got, stats, columns = s.timed(lambda: call(values.to(s.device), threshold=threshold))
        scaled, scale, outliers = int8_rows(s, values, threshold)
        if bool(((stats.cpu().double().reshape(-1) - scale).abs() > scale * 1e-6).any()):
            raise Wrong("a row's scale is wrong")
        if threshold:
            found = torch.zeros(cols, dtype=torch.bool)
            found[columns.cpu().to(torch.int64)] = True
            if not torch.equal(found, outliers):
                raise Wrong("the outlier columns are wrong")
        return float((got.cpu().double() - scaled).abs().max()), 0.5 + 2e-3

    def product(rows, cols, outs):
        left = torch.randint(-127, 128, (rows, cols), generator=s.generator(rows, cols)).to(torch.int8)
        right = torch.randint(-127, 128, (outs, cols), generator=s.generator(outs, cols)).to(torch.int8)
        call = s.need(s.F, "int8_linear_matmul")
        got = s.timed(lambda: call(left.to(s.device), right.to(s.device)))
        want = left.double() @ right.double().t()
        return float((got.cpu().double() - want).abs().max()), 0.0

    for rows, cols in sizes:
        for threshold in (0.0, 6.0):
            s.check("int8_vectorwise_quant", F16, {"rows": rows, "cols": cols, "threshold": threshold},
                    lambda a=(rows, cols, threshold): quantise(*a))  # fmt: skip
    for rows, cols, outs in ((1, 64, 32), (5, 96, 40)) + (((8, 720, 33), (3, 37, 5), (64, 512, 128)) if s.full else ()):
        s.check("int8_linear_matmul", "int8", {"batch": rows, "cols": cols, "rows": outs},
                lambda a=(rows, cols, outs): product(*a))  # fmt: skip


# A product of two int8 matrices: each side is off by up to half a step of 1/127 of its row's largest value.
TRAINED = 0.15


def check_linear8bit(s):
    torch = s.torch

    def layer_of(cols, outs, dtype, threshold, bias):
        make = s.need(s.bnb.nn, "Linear8bitLt")
        weight = s.data(outs, cols, 64, F16, spread=0.3, salt="layer")
        layer = make(cols, outs, bias=bool(bias), has_fp16_weights=False, threshold=threshold)
        layer.weight = s.bnb.nn.Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False)
        shift = None
        if bias:
            shift = s.data(1, outs, 64, dtype, spread=0.0, salt="bias").reshape(-1) * 4
            layer.bias = torch.nn.Parameter(shift.clone())
        layer = layer.to(s.device)
        codes, scale = layer.weight.data, getattr(layer.weight, "SCB", None)
        if codes.dtype != torch.int8 or scale is None:
            if s.device.type == "cuda":
                raise Wrong("the layer was not quantised")
            raise NotOffered("the layer is not quantised on this device")
        exact = codes.cpu().double() * (scale.cpu().double().reshape(-1, 1) / 127.0)
        limit = weight.double().abs().amax(1, keepdim=True) / 127.0 * 0.51 + 1e-12
        if bool(((exact - weight.double()).abs() > limit).any()):
            raise Wrong("the int8 weight does not stand for the weight that was given")
        return layer, exact, shift

    def inputs(rows, cols, dtype, threshold):
        left = s.data(rows, cols, 64, dtype, spread=0.3, salt="left")
        if threshold:
            left = left.clamp(-5.5, 5.5)
            left[0, 3] = 30.0
            left[-1, cols // 2] = -8.0
        return clear_of_edges(s, left, threshold)

    def forward(rows, cols, outs, dtype, threshold, bias):
        layer, exact, shift = layer_of(cols, outs, dtype, threshold, bias)
        layer.eval()
        left = inputs(rows, cols, dtype, threshold)
        with torch.no_grad():
            got = s.timed(lambda: layer(sequences(left).to(s.device)))
        scaled, scale, columns = int8_rows(s, left, threshold)
        rounded = scaled.round() * (scale / 127.0).unsqueeze(1)
        if threshold:
            rounded = torch.where(columns.unsqueeze(0), left.double(), rounded)
        want = rounded @ exact.t()
        if bias:
            want = want + shift.double()
        got = rows_of(s, got, want)
        # The kernels hand on half precision whatever the input is.
        return product_error(got, rounded, exact, want), max(PRODUCT[F16], PRODUCT[dtype])

    def backward(rows, cols, outs, dtype, threshold, bias):
        layer, exact, shift = layer_of(cols, outs, dtype, threshold, bias)
        layer.train()
        left = sequences(inputs(rows, cols, dtype, threshold)).to(s.device).requires_grad_()
        slope = s.data(rows, outs, 64, dtype, spread=0.3, salt="slope")

        def run():
            layer(left).backward(sequences(slope).to(s.device))
            return left.grad

        got = s.timed(run)
        if got is None:
            raise Wrong("the input got no gradient")
        want = slope.double() @ exact
        error = product_error(rows_of(s, got, want), slope, exact.t(), want)
        if bias:
            if layer.bias.grad is None:
                raise Wrong("the bias got no gradient")
            size = slope.double().abs().sum(0) + 1e-30
            error = max(error, float(((layer.bias.grad.cpu().double() - slope.double().sum(0)).abs() / size).max()))
        return error, PRODUCT[dtype]

    def trained(rows, cols, outs, dtype):
        """The weight itself is trained: it stays in its own dtype and is quantised anew for every product."""
        make = s.need(s.bnb.nn, "Linear8bitLt")
        layer = make(cols, outs, bias=False, has_fp16_weights=True, threshold=0.0)
        weight = s.data(outs, cols, 64, F16, spread=0.3, salt="layer").to(s.dtype(dtype))
        layer.weight = s.bnb.nn.Int8Params(weight.clone(), requires_grad=True, has_fp16_weights=True)
        layer = layer.to(s.device).train()
        left = s.data(rows, cols, 64, dtype, spread=0.3, salt="left")
        slope = s.data(rows, outs, 64, dtype, spread=0.3, salt="slope")
        got = s.timed(lambda: layer(left.to(s.device)))
        want = left.double() @ weight.double().t()
        error = product_error(got, left, weight, want)
        got.backward(slope.to(s.device))
        if layer.weight.grad is None:
            raise Wrong("the weight got no gradient")
        want = slope.double().t() @ left.double()
        error = max(error, product_error(layer.weight.grad, slope.t(), left.t(), want))
        return error, TRAINED

    # As many rows as outputs: only there can the scales of both sides change places unseen.
    sizes = ((1, 64, 32), (5, 96, 40), (32, 64, 32), (6, 64, 48))
    sizes += ((4, 720, 48), (33, 256, 128), (3, 100, 36)) if s.full else ()
    for rows, cols, outs in sizes:
        for threshold in (0.0, 6.0):
            for dtype in DTYPES:
                for bias in (0, 1) if s.full else (1,):
                    shape = {"rows": outs, "cols": cols, "batch": rows, "threshold": threshold, "bias": bias}
                    key = (rows, cols, outs, dtype, threshold, bias)
                    s.check("linear8bitlt/eval", dtype, shape, lambda a=key: forward(*a))
                    s.check("linear8bitlt/backward", dtype, shape, lambda a=key: backward(*a))
    for dtype in DTYPES:
        s.check("linear8bitlt/trained", dtype, {"rows": 32, "cols": 64, "batch": 8},
                lambda d=dtype: trained(8, 64, 32, d))  # fmt: skip


# -- optimisers -------------------------------------------------------------------------------------------------

LR = 1e-2
STEPS = 3  # the first is special in every rule, the second may be taken for the first
SMALL = 4096  # below that many elements moments are kept in 32 bits: adapters are such parameters
# family: arguments, number of first moments, has a second moment
FAMILIES = {
    "Adam": {"betas": (0.9, 0.995), "eps": 1e-8},
    "AdamW": {"betas": (0.9, 0.995), "eps": 1e-8, "weight_decay": 1e-2},
    "SGD": {"momentum": 0.9},
    "Lion": {"betas": (0.9, 0.99)},
    "RMSprop": {"alpha": 0.95, "eps": 1e-8},
    "Adagrad": {"eps": 1e-8},
    "LAMB": {"betas": (0.9, 0.995), "eps": 1e-8},
    "LARS": {"momentum": 0.9},
    "AdEMAMix": {"betas": (0.9, 0.995, 0.999), "alpha": 5.0, "eps": 1e-8, "weight_decay": 1e-2},
}


def update_rule(s, family, p, g, first, second, step):
    """One step after the published rule, in float64. Returns the parameter and the moments.

    Adam arXiv 1412.6980, AdamW 1711.05101, Lion 2302.06675, AdEMAMix 2409.03137 (constant schedules),
    RMSprop: Hinton's lecture 6e, Adagrad: Duchi et al. 2011. LAMB (1904.00962) and LARS (1708.03888) are
    called with parameters so large that their trust ratios do not clip: then they are Adam and momentum.
    """
    torch, a = s.torch, FAMILIES[family]
    if family in ("Adam", "AdamW", "LAMB"):
        b1, b2 = a["betas"]
        m, v = b1 * first + (1 - b1) * g, b2 * second + (1 - b2) * g * g
        move = (m / (1 - b1**step)) / ((v / (1 - b2**step)).sqrt() + a["eps"])
        return p - LR * (move + a.get("weight_decay", 0.0) * p), m, v
    if family in ("SGD", "LARS"):
        m = g if step == 1 else a["momentum"] * first + g
        return p - LR * m, m, None
    if family == "Lion":
        b1, b2 = a["betas"]
        return p - LR * torch.sign(b1 * first + (1 - b1) * g), b2 * first + (1 - b2) * g, None
    if family == "RMSprop":
        v = a["alpha"] * first + (1 - a["alpha"]) * g * g
        return p - LR * g / (v.sqrt() + a["eps"]), v, None
    if family == "Adagrad":
        v = first + g * g
        return p - LR * g / (v.sqrt() + a["eps"]), v, None
    b1, b2, b3 = a["betas"]
    fast, slow = b1 * first[0] + (1 - b1) * g, b3 * first[1] + (1 - b3) * g
    v = b2 * second + (1 - b2) * g * g
    move = (fast / (1 - b1**step) + a["alpha"] * slow) / (v.sqrt() / math.sqrt(1 - b2**step) + a["eps"])
    return p - LR * (move + a["weight_decay"] * p), torch.stack((fast, slow)), v


class Moments:
    """A library optimiser's moments of one parameter, decoded to float64."""

    def __init__(self, s, state):
        self.s, self.state = s, state

    def read(self, key):
        """The values of `state1` or `state2`; None where there is none."""
        s, torch = self.s, self.s.torch
        held = self.state.get(key)
        if held is None:
            return None
        held = held.detach().cpu()
        if held.dtype != torch.uint8:
            return held.double().clone()
        book = self.book(key)
        scale, block = self.scale(key)
        flat = book[held.reshape(scale.shape[0], -1).to(torch.int64)]
        return (flat * self.stretch(scale, block, flat.shape[1])).reshape(held.shape)

    def book(self, key):
        return self.s.book(dynamic_map(signed=key == "state1"))

    def scale(self, key):
        """Block scales as (moments, blocks), and the block size that fits."""
        held = self.state[key]
        scale = self.state["absmax" + key[-1]].detach().cpu().double()
        scale = scale.reshape(-1, scale.shape[-1])
        count = held.numel() // scale.shape[0]
        for block in (256, 2048, 64, 128, 512, 1024, 4096):
            if -(-count // block) == scale.shape[1]:
                return scale, block
        raise Wrong(f"{scale.shape[1]} block scales for {count} moments")

    def stretch(self, scale, block, count):
        return scale.repeat_interleave(block, dim=1)[:, :count]

    def excess(self, key, want, old):
        """How far the stored moment is from the wanted one: code choice for 8 bit, relative for 32 bit."""
        s, torch = self.s, self.s.torch
        held = self.state[key].detach().cpu()
        if held.dtype != torch.uint8:
            size = want.abs() + old.abs() + 1e-30  # of the terms: their sum may cancel
            return float(((held.double() - want).abs() / size).max()), 2e-6
        scale, block = self.scale(key)
        flat = want.reshape(scale.shape[0], -1)
        worst = 0.0
        for row, codes, held_scale in zip(flat, held.reshape(flat.shape).to(torch.int64), scale):
            true = s.absmax(row, block)
            if bool(((held_scale - true).abs() > true * 1e-5 + 1e-30).any()):
                raise Wrong(f"a block scale of {key} is wrong")
            per = s.spread(true, block, row.numel())
            scaled = row / torch.where(per > 0, per, torch.ones_like(per))
            worst = max(worst, s.code_excess(scaled, codes, self.book(key), per > 0))
        return worst, 2 * EDGE_8BIT


def optimizer_names(s):
    """(class, family, width, paged) of everything the installed release offers, and what it lacks."""
    for family in FAMILIES:
        for paged in ("", "Paged"):
            for width in ("8bit", "32bit", ""):
                yield f"{paged}{family}{width}", family, width, bool(paged)


def make_optimizer(s, name, family, parameter):
    """The optimiser with the parameter in a second group; in the first is another, with a rate of its own."""
    make = getattr(s.bnb.optim, name, None)
    if make is None:
        raise NotOffered(f"bitsandbytes.optim has no `{name}`")
    other = s.torch.nn.Parameter(s.torch.ones(64, device=s.device))
    other.grad = s.torch.ones_like(other)
    return make([{"params": [other], "lr": 7 * LR}, {"params": [parameter]}], lr=LR, **FAMILIES[family])


def moments_name(family):
    return ("state1", "state2") if family in ("Adam", "AdamW", "LAMB", "AdEMAMix") else ("state1",)


def check_optimizers(s):
    torch = s.torch

    def body(name, family, dtype, count):
        # Small parameters leave the update visible after rounding; LAMB and LARS need large ones (no clipping).
        size = 1000.0 if family in ("LAMB", "LARS") else 1.0 if dtype == F32 else 0.1
        start = (s.data(1, count, 256, F32, spread=0.0, salt="p").reshape(-1) * size).to(s.dtype(dtype))
        slope_spread = 0.0 if family in ("SGD", "LARS") else 1.0
        slopes = [s.data(1, count, 256, dtype, spread=slope_spread, salt=f"g{i}").reshape(-1) for i in range(STEPS)]
        for slope in slopes:
            slope[:16] = 2e-8  # so small that epsilon counts
        slopes = [torch.where(g == 0, torch.ones_like(g), g) for g in slopes]
        parameter = torch.nn.Parameter(start.clone().to(s.device))
        optimizer = make_optimizer(s, name, family, parameter)
        keys = moments_name(family)
        # A buffer that is too small would be overrun by the kernel: look before the first step.
        optimizer.init_state(optimizer.param_groups[1], parameter, 1, 0)
        held, want = optimizer.state[parameter]["state1"].numel(), count * (2 if family == "AdEMAMix" else 1)
        if held != want:
            raise Wrong(f"state1 holds {held} numbers, the update rule keeps {want}")
        worst, tolerance = 0.0, 1.0
        for step, slope in enumerate(slopes, 1):
            before = parameter.detach().cpu().double()
            if step == 1:
                zero = torch.zeros(count, dtype=torch.float64)
                first = torch.stack((zero, zero)) if family == "AdEMAMix" else zero
                second = zero
            else:
                held = Moments(s, optimizer.state[parameter])
                first, second = held.read("state1"), held.read("state2")
            parameter.grad = slope.to(s.device)
            s.timed(optimizer.step)
            old = (first, second)
            want, first, second = update_rule(s, family, before, slope.double(), first, second, step)
            got = parameter.detach().cpu().double()
            moved = (want - before).abs()
            # Rounding of the parameter (twice where a kernel decays in its own dtype), then the kernel's own arithmetic.
            allowed = (before.abs() + want.abs()) * ROUNDOFF[dtype] * 1.2 + moved * 2e-4 + LR * 1e-4 + SMALLEST[dtype]
            if family == "Lion":
                # sign() of a sum near zero may fall either way
                allowed = allowed + torch.where(lion_edge(slope, old[0]), 2 * LR, 0.0)
            ratio = float(((got - want).abs() / allowed).max())
            if not ratio <= 1.0:
                raise Wrong(f"step {step}: the parameter is off by {ratio:.3g} times what rounding allows")
            worst = max(worst, ratio)
            held = Moments(s, optimizer.state[parameter])
            for key, moment, previous in zip(keys, (first, second), old):
                if key not in held.state:
                    raise Wrong(f"the optimiser keeps no {key}")
                excess, limit = held.excess(key, moment, previous)
                if not excess <= limit:
                    raise Wrong(f"step {step}: {key} is off by {excess:.3g}, allowed {limit:.3g}")
        eight = optimizer.state[parameter]["state1"].dtype == torch.uint8
        if eight != (name.endswith("8bit") and count >= SMALL):
            raise Wrong("the moments are not kept in the width asked for")
        return worst, tolerance

    for name, family, width, paged in optimizer_names(s):
        if not s.full and (family not in ("AdamW", "Lion", "SGD") or width == ""):
            continue
        if getattr(s.bnb.optim, name, None) is None and width == "" and paged:
            continue  # PagedSGD and the like never existed; the sized names are reported
        # Paged memory is only used from 100,000 elements.
        count = 100_003 if paged and s.device.type != "cpu" else SMALL + 133
        for dtype in DTYPES if s.full else (F32, BF16):
            s.check(f"optimizer/{name}", dtype, {"count": count, "paged": int(paged)},
                    lambda a=(name, family, dtype, count): body(*a))  # fmt: skip
        if width == "8bit":
            s.check(f"optimizer/{name}/small", F32, {"count": 1000, "paged": int(paged)},
                    lambda a=(name, family, F32, 1000): body(*a))  # fmt: skip


def lion_edge(slope, first):
    """Where Lion's interpolated gradient is too near zero for its sign to be certain."""
    b1, _ = FAMILIES["Lion"]["betas"]
    g = slope.double()
    return (b1 * first + (1 - b1) * g).abs() <= 1e-6 * (first.abs() + g.abs())


# -- saving and loading -------------------------------------------------------------------------------------------


def check_state_dicts(s):
    torch = s.torch

    def through_disk(state):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        return torch.load(buffer, map_location="cpu", weights_only=True)

    def four(quant_type, dtype, nested):
        layer, exact, _ = linear4bit(s, 128, 64, quant_type, dtype, nested, 1)
        saved = through_disk(dict(layer.state_dict()))
        parts = {k[len("weight."):]: v for k, v in saved.items() if k.startswith("weight.")}
        if not parts:
            raise Wrong("the state dict holds no quantisation state")
        weight = s.need(s.bnb.nn.Params4bit, "from_prequantized")(
            data=saved["weight"], quantized_stats=parts, requires_grad=False, device=s.device)  # fmt: skip
        again = s.bnb.nn.Linear4bit(128, 64, bias=True, compute_dtype=s.dtype(dtype), quant_type=quant_type)
        again.weight = weight
        again.bias = torch.nn.Parameter(saved["bias"].to(s.device))
        again.quant_state = weight.quant_state
        again = again.to(s.device)
        difference = (s.decode(again.weight.data, again.weight.quant_state) - exact).abs().max()
        left = s.data(3, 128, 64, dtype, spread=0.5).to(s.device).requires_grad_()
        changed = (layer(left).detach() - again(left).detach()).abs().max()
        return float(max(difference.item(), changed.item())), 0.0

    def eight(dtype):
        make = s.need(s.bnb.nn, "Linear8bitLt")
        layers = [make(96, 40, bias=True, has_fp16_weights=False, threshold=6.0).to(s.device) for _ in range(2)]
        layers[1].load_state_dict(through_disk(dict(layers[0].state_dict())))
        if layers[0].weight.data.dtype != torch.int8:
            raise NotOffered("the layer is not quantised on this device")
        left = s.data(3, 96, 64, dtype, spread=0.3).to(s.device)
        with torch.no_grad():
            outs = [layer.eval()(left).cpu().double() for layer in layers]
        return float((outs[0] - outs[1]).abs().max()), 0.0

    def optimizer(name, family):
        slopes = [s.data(1, SMALL + 133, 256, F32, salt=f"g{i}").reshape(-1).to(s.device) for i in (1, 2)]
        start = s.data(1, SMALL + 133, 256, F32, spread=0.0, salt="p").reshape(-1).to(s.device)
        kept = torch.nn.Parameter(start.clone())
        one = make_optimizer(s, name, family, kept)
        kept.grad = slopes[0]
        one.step()
        moved = torch.nn.Parameter(kept.detach().clone())
        two = make_optimizer(s, name, family, moved)
        two.load_state_dict(through_disk(one.state_dict()))
        for parameter, owner in ((kept, one), (moved, two)):
            parameter.grad = slopes[1]
            owner.step()
        return float((kept.detach() - moved.detach()).abs().max()), 0.0

    for quant_type in BOOKS:
        for dtype in DTYPES if s.full else (BF16,):
            for nested in (0, 1):
                s.check(f"state_dict/linear4bit/{quant_type}", dtype, {"nested": nested},
                        lambda a=(quant_type, dtype, nested): four(*a))  # fmt: skip
    s.check("state_dict/linear8bitlt", F16, {}, lambda: eight(F16))
    for name, family in (("AdamW8bit", "AdamW"), ("Lion8bit", "Lion")) if s.full else (("AdamW8bit", "AdamW"),):
        s.check(f"state_dict/optimizer/{name}", F32, {"count": SMALL + 133}, lambda a=(name, family): optimizer(*a))


# -- speed ----------------------------------------------------------------------------------------------------------

# product: the largest ratio of its time to that of the half-precision product of the same shape.
# Wide on purpose: they catch a fallback or a wrong build, not a slow release.
SPEED_LIMITS = {("matmul_4bit", 1): 8.0, ("matmul_4bit", 1024): 8.0, ("linear8bitlt", 1024): 16.0}


def check_speed(s):
    """Each quantised product beside the half-precision product of the same shape; GPUs only."""
    torch = s.torch
    size = 8192 if s.full else 4096

    def clock(call, repeat=20):
        for _ in range(5):
            call()
        times = []
        for _ in range(5):
            s.sync()
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            s.sync()
            times.append((time.perf_counter() - start) / repeat * 1e3)
        return min(times)

    def body(kind, rows):
        weight = torch.randn(size, size, device=s.device, dtype=torch.float16) * 0.02
        left = torch.randn(rows, size, device=s.device, dtype=torch.float16)
        plain = clock(lambda: torch.nn.functional.linear(left, weight))
        if kind == "matmul_4bit":
            packed, state = s.F.quantize_4bit(weight, blocksize=64, quant_type="nf4")
            call = lambda: s.bnb.matmul_4bit(left, packed.t(), quant_state=state)  # noqa: E731
        else:
            layer = s.bnb.nn.Linear8bitLt(size, size, bias=False, has_fp16_weights=False, threshold=0.0)
            layer.weight = s.bnb.nn.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
            layer = layer.to(s.device).eval()
            call = lambda: layer(left)  # noqa: E731
        with torch.no_grad():
            ours = clock(call)
        s.ms = ours
        ratio, limit = ours / plain, SPEED_LIMITS[kind, rows]
        words = f"{ours:.3f} ms against {plain:.3f} ms in float16"
        return (ratio, limit, words) if ratio <= limit else (ratio, ratio, words + f", limit {limit:g} times", "degraded")

    if s.device.type == "cpu":
        return
    for kind, rows in SPEED_LIMITS:
        s.check(f"speed/{kind}", F16, {"rows": size, "cols": size, "batch": rows}, lambda a=(kind, rows): body(*a))


# -- the run ----------------------------------------------------------------------------------------------------------


def cpu_flags():
    """The processor's feature flags as Linux names them; empty elsewhere."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return sorted(line.split(":", 1)[1].split())
    return []


_NATIVE = r"lib(bitsandbytes|torch|c10|cuda|cublas|cusparse|nvrtc|nvJitLink|nvidia|amdhip|hip|roc|hsa|sycl|stdc\+\+|gomp|iomp|omp|mkl)"


def mapped_libraries():
    """Native libraries that decide how this process computes, as they are really mapped."""
    found = set()
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            path = line.rstrip("\n").split(maxsplit=5)[5:]
            if path and re.search(r"\.so(\.|$)", path[0]) and re.match(_NATIVE, os.path.basename(path[0])):
                found.add(path[0])
    return sorted(found)


def imported_modules():
    """Top-level modules outside the standard library, with their files."""
    standard = tuple(
        os.path.realpath(path) + os.sep for path in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")} if path
    )
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or name == "__main__" or not isinstance(file, str):
            continue
        real = os.path.realpath(file)
        if not real.startswith(standard) or "site-packages" in real or "dist-packages" in real:
            found[name] = file
    return found


def library_name(bnb):
    """The file that bitsandbytes says it loaded, else the one that is mapped."""
    with contextlib.suppress(Exception):
        from bitsandbytes.cextension import lib

        name = getattr(getattr(lib, "_lib", None), "_name", None)
        if name:
            return os.path.basename(str(name))
    mapped = [path for path in mapped_libraries() if "libbitsandbytes" in path]
    return os.path.basename(mapped[0]) if mapped else None


def device_name(s):
    kind = s.device.type
    if kind == "cuda":
        return s.torch.cuda.get_device_name(s.device)
    if kind == "xpu":
        return s.torch.xpu.get_device_name(s.device)
    if kind == "cpu":
        with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def device_capability(s):
    """What decides which kernels fit: a compute capability, or a gfx target; None where there is neither."""
    if s.device.type != "cuda":
        return None
    properties = s.torch.cuda.get_device_properties(s.device)
    gfx = getattr(properties, "gcnArchName", None) if getattr(s.torch.version, "hip", None) else None
    return gfx.split(":")[0] if gfx else f"{properties.major}.{properties.minor}"


def device_count(s):
    backend = getattr(s.torch, s.device.type, None)
    return backend.device_count() if s.device.type in ("cuda", "xpu") else 1


CHECKS = (
    check_books, check_quantize_4bit, check_dequantize_4bit, check_nested, check_blockwise, check_matmul_4bit,
    check_linear4bit, check_int8, check_linear8bit, check_optimizers, check_state_dicts, check_speed,
)  # fmt: skip


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, xpu:0, mps")
    parser.add_argument("--level", choices=("quick", "full"), default="quick")
    parser.add_argument("--events", required=True, help="file to which one JSON object a line is appended")
    parser.add_argument("--imports", action="store_true", help="import, tell what was loaded, and end")
    parser.add_argument("--only", help="regular expression on the names of checks")
    parser.add_argument("--first", type=int, default=0, help="leave out this many checks: the rest of a run that crashed")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    events = Events(arguments.events)
    started = time.perf_counter()
    events.write(event="start", schema=SCHEMA, device=arguments.device, level=arguments.level,
                 python=platform.python_version(), platform=platform.platform())  # fmt: skip
    s = Session(events, arguments.device, arguments.level, arguments.only, arguments.first)
    events.write(event="begin", name="import", dtype="", shape={})
    try:
        import torch
        import bitsandbytes as bnb
        import bitsandbytes.functional as functional

        s.torch, s.bnb, s.F = torch, bnb, functional
        s.device = torch.device(arguments.device)
        if not arguments.imports:
            torch.empty(1, device=s.device)
        s.cpu_flags = cpu_flags()
        imported = {"state": "passed", "detail": None}
    except Exception as error:  # noqa: BLE001 - an import that fails is a result
        imported = {"state": "failed", "detail": first_line(error)}
    events.write(event="end", name="import", dtype="", shape={}, error=None, tolerance=None,
                 ms=(time.perf_counter() - started) * 1e3, **imported)  # fmt: skip
    if imported["state"] == "passed":
        toolkits = {"cuda": torch.version.cuda, "hip": getattr(torch.version, "hip", None)}
        events.write(
            event="loaded", name=device_name(s), capability=device_capability(s), library=library_name(bnb),
            mapped=mapped_libraries(),
            versions={"python": platform.python_version(), "torch": torch.__version__, "bitsandbytes": bnb.__version__,
                      **{name: version for name, version in toolkits.items() if version}},
            modules=imported_modules(), cpu_flags=s.cpu_flags, device_count=device_count(s),
        )  # fmt: skip
        try:
            for run in () if arguments.imports else CHECKS:
                run(s)
        except ContextLost:
            events.write(event="context-lost", index=s.count)
            return 3
    events.write(event="done", seconds=time.perf_counter() - started, states=s.states)
    return 0 if imported["state"] == "passed" and not s.states.get("failed") else 1


if __name__ == "__main__":
    sys.exit(main())
