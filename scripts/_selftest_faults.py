"""The faults that `prove_selftest.py` plants in a real bitsandbytes 0.50.2, and which check must catch each.

Most are edits of the installed Python files: on a machine without a GPU these files *are* half of the
kernels. The others change the native library: its tables, its code, its length, its presence.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RELEASE = "0.50.2"
LIBRARY = "libbitsandbytes_cpu.so"
STALE_RELEASE = "0.49.2"

Catcher = Literal["quick", "full", "train", "record"]


class PlantError(Exception):
    """The fault does not fit the installed files: the catalogue is out of date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a fault is planted.

    Attributes:
        package: the mutant's own ``bitsandbytes`` directory; never hardlinked to anything.
        stale: the library of `STALE_RELEASE`.
        offset_of: symbol → offset of its code in the library file.
    """

    package: Path
    stale: Path
    offset_of: Callable[[str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        name: its key in the record.
        catcher: the level of the self-test, or the comparison with RECORD, that must see it.
        expected: glob on the names of the checks that must fail (for ``record``, on the kind of fault).
        file: what is changed, relative to the package.
        plant: does it.
        outcome: the verdict it must lead to.
    """

    name: str
    catcher: Catcher
    expected: str
    file: str
    plant: Callable[[Place], None]
    outcome: str = field(default="failed")


def edit(file: str, old: str, new: str, *, after: str = "") -> Callable[[Place], None]:
    """Replaces the first `old` that follows `after`; both must be there."""

    def plant(place: Place) -> None:
        path = place.package / file
        text = path.read_text(encoding="utf-8")
        start = text.find(after)
        at = text.find(old, start + len(after)) if start >= 0 else -1
        if at < 0:
            raise PlantError(f"`{file}` does not hold `{old[:60]}`")
        path.write_text(text[:at] + new + text[at + len(old) :], encoding="utf-8")

    return plant


def poke(change: Callable[[bytearray, Place], None]) -> Callable[[Place], None]:
    """Changes bytes of the native library."""

    def plant(place: Place) -> None:
        path = place.package / LIBRARY
        content = bytearray(path.read_bytes())
        before = bytes(content)
        change(content, place)
        if bytes(content) == before:
            raise PlantError("the library was not changed")
        path.write_bytes(content)

    return plant


def single(old: float, new: float) -> Callable[[bytearray, Place], None]:
    """Every single-precision `old` becomes `new`."""

    def change(content: bytearray, _: Place) -> None:
        was, now = struct.pack("<f", old), struct.pack("<f", new)
        at = content.find(was)
        while at >= 0:
            content[at : at + 4] = now
            at = content.find(was, at + 4)

    return change


def code(symbol: str, instructions: bytes) -> Callable[[bytearray, Place], None]:
    """A function begins with other machine instructions (x86-64)."""

    def change(content: bytearray, place: Place) -> None:
        at = place.offset_of(symbol)
        content[at : at + len(instructions)] = instructions

    return change


def halve(content: bytearray, _: Place) -> None:
    """Half of the file is lost."""
    del content[len(content) // 2 :]


def lose_the_end(content: bytearray, _: Place) -> None:
    """The last kilobyte is lost: only section headers, which the loader does not read."""
    del content[-1024:]


def zero_four(content: bytearray, _: Place) -> None:
    """Four bytes become zero near the end of the file, where nothing is executed."""
    at = max(i for i in range(len(content) - 4) if content[i : i + 4].count(0) == 0)
    content[at : at + 4] = bytes(4)


def delete(place: Place) -> None:
    """The library is gone."""
    (place.package / LIBRARY).unlink()


def stale(place: Place) -> None:
    """The library is that of another release."""
    (place.package / LIBRARY).write_bytes(place.stale.read_bytes())


def fault(
    name: str, catcher: Catcher, expected: str, file: str, old: str, new: str, *, after: str = ""
) -> Fault:
    """A row of the table below that edits Python."""
    return Fault(
        name=name, catcher=catcher, expected=expected, file=file, plant=edit(file, old, new, after=after)
    )


def native(name: str, catcher: Catcher, expected: str, plant: Callable[[Place], None]) -> Fault:
    """A row that changes the library."""
    return Fault(name=name, catcher=catcher, expected=expected, file=LIBRARY, plant=plant)


FUNCTIONAL, MODULES, AUTOGRAD = "functional.py", "nn/modules.py", "autograd/_functions.py"
CPU, DEFAULT, OPTIMIZER = "backends/cpu/ops.py", "backends/default/ops.py", "optim/optimizer.py"
EIGHT_BIT = "def _optimizer_update_8bit_blockwise_cpu"

FAULTS: tuple[Fault, ...] = (
    # -- tables ---------------------------------------------------------------------------------------
    fault("nf4-level-wrong", "quick", "levels/nf4/library", FUNCTIONAL, "0.44070982933044434", "0.4507"),
    fault(
        "fp4-levels-swapped", "quick", "levels/fp4/library", FUNCTIONAL, "8.0, 12.0, 4.0", "12.0, 8.0, 4.0"
    ),
    fault(
        "dynamic-map-level-wrong",
        "quick",
        "levels/dynamic/library",
        FUNCTIONAL,
        "    data.sort()\n",
        "    data.sort()\n    data[200] = data[201]\n",
        after="assert len(data) == 2**total_bits",
    ),
    native(
        "native-nf4-level-wrong", "quick", "dequantize_4bit/nf4/*", poke(single(0.44070982933044434, 0.4507))
    ),
    native("native-fp4-level-wrong", "quick", "dequantize_4bit/fp4/*", poke(single(1 / 3, 0.35))),
    # -- quantise -------------------------------------------------------------------------------------
    fault(
        "nibbles-swapped",
        "quick",
        "quantize_4bit/*",
        DEFAULT,
        "(q8[::2] << 4) | q8[1::2]",
        "(q8[1::2] << 4) | q8[::2]",
    ),
    fault(
        "quantise-last-partial-block",
        "quick",
        "quantize_4bit/*",
        DEFAULT,
        "am = A_flat[full:].abs().max()",
        "am = A_flat[:blocksize].abs().max()",
        after='@register_kernel("bitsandbytes::quantize_4bit", "default")',
    ),
    fault(
        "quantise-rounds-down",
        "quick",
        "quantize_4bit/*",
        DEFAULT,
        "(code[order[:-1]] + code[order[1:]]) / 2",
        "(code[order[:-1]] + 3 * code[order[1:]]) / 4",
    ),
    fault(
        "blockwise-last-partial-block",
        "quick",
        "quantize_blockwise/*",
        CPU,
        "ct.c_longlong(n),",
        "ct.c_longlong(n - n % blocksize if n > blocksize else n),",
        after="lib.cquantize_blockwise_cpu_fp32",
    ),
    fault(
        "blocksize-recorded-wrong",
        "quick",
        "quantize_4bit/*",
        FUNCTIONAL,
        "blocksize=blocksize,\n            code=code,\n            quant_type=quant_type,\n        )",
        "blocksize=64,\n            code=code,\n            quant_type=quant_type,\n        )",
    ),
    fault(
        "quantise-one-block-size",
        "quick",
        "quantize_4bit/*/b512",
        DEFAULT,
        "    scaled = torch.clamp(A_com * (1.0 /",
        "    scaled = torch.clamp(A_com * ((1.02 if blocksize == 512 else 1.0) /",
        after='@register_kernel("bitsandbytes::quantize_4bit", "default")',
    ),
    fault(
        "quantise-strides-ignored",
        "quick",
        "quantize_blockwise/strided",
        CPU,
        "        A = A.contiguous()\n        n = A.numel()\n",
        "        n = A.numel()\n",
        after='"bitsandbytes::quantize_blockwise", "cpu"',
    ),
    fault(
        "quantise-strided-matrix-as-it-lies",
        "quick",
        "quantize_4bit/*/strided",
        DEFAULT,
        "    A_flat = A.reshape(-1).float()\n",
        "    A_flat = (A if A.is_contiguous() else A.t()).reshape(-1).float()\n",
        after='@register_kernel("bitsandbytes::quantize_4bit", "default")',
    ),
    fault(
        "storage-type-reverses-bytes",
        "quick",
        "quantize_4bit/*/storage",
        DEFAULT,
        "packed.squeeze().view(quant_storage)",
        "packed.squeeze().flip(0).view(quant_storage)",
        after='@register_kernel("bitsandbytes::quantize_4bit", "default")',
    ),
    # -- dequantise -----------------------------------------------------------------------------------
    fault(
        "absmax-off-by-one-block",
        "quick",
        "dequantize_4bit/*",
        CPU,
        "        if len(shape) == 1:",
        "        absmax = absmax.roll(1)\n        if len(shape) == 1:",
    ),
    fault(
        "absmax-off-in-last-block",
        "quick",
        "dequantize_4bit/*",
        CPU,
        "        if len(shape) == 1:",
        "        absmax = torch.cat((absmax[:-1], absmax[:1]))\n        if len(shape) == 1:",
    ),
    fault(
        "second-level-absmax-dropped",
        "quick",
        "dequantize_4bit/*/nested",
        FUNCTIONAL,
        "absmax = dequantize_blockwise(quant_state.absmax, quant_state.state2)",
        "absmax = quant_state.state2.code[quant_state.absmax.long()]",
        after="def dequantize_4bit(",
    ),
    fault(
        "nested-offset-dropped",
        "quick",
        "dequantize_4bit/*/nested",
        FUNCTIONAL,
        "absmax += quant_state.offset",
        "pass",
        after="def dequantize_4bit(",
    ),
    fault(
        "dequantise-scale-rounded",
        "quick",
        "dequantize_4bit/*",
        CPU,
        "        if len(shape) == 1:",
        "        absmax = absmax.bfloat16().float()\n        if len(shape) == 1:",
    ),
    native(
        "native-function-returns-at-once",
        "quick",
        "dequantize_4bit/nf4/*",
        poke(code("cdequantize_blockwise_cpu_nf4_fp32", b"\xc3")),
    ),
    native(
        "native-function-crashes",
        "quick",
        "dequantize_4bit/fp4/*",
        poke(code("cdequantize_blockwise_cpu_fp4_fp32", b"\x0f\x0b")),
    ),
    fault(
        "dequantise-bfloat16-alone",
        "quick",
        "dequantize_4bit/*",
        CPU,
        "            raise ValueError\n\n        return out",
        "            raise ValueError\n"
        "\n        if dtype == torch.bfloat16:\n"
        "            out.reshape(-1)[-1] *= 1.05\n"
        "        return out",
        after='"bitsandbytes::dequantize_4bit", "cpu"',
    ),
    fault(
        "dequantise-one-block-size",
        "quick",
        "dequantize_4bit/*/b256",
        CPU,
        "        if len(shape) == 1:",
        "        absmax = absmax * 1.01 if blocksize == 256 else absmax\n        if len(shape) == 1:",
    ),
    fault(
        "dequantise-large-block-size",
        "full",
        "dequantize_4bit/*/b4096",
        CPU,
        "        avx512_fallback = ",
        "        absmax = absmax * 1.01 if blocksize == 4096 else absmax\n        avx512_fallback = ",
    ),
    fault(
        "dequantise-large-tensors",
        "quick",
        "dequantize_4bit/*/b64",
        CPU,
        "            raise ValueError\n\n        return out",
        "            raise ValueError\n"
        "\n        if out.numel() > 2**18:\n"
        "            out.reshape(-1)[2**18 :] *= -1\n"
        "        return out",
        after='"bitsandbytes::dequantize_4bit", "cpu"',
    ),
    fault(
        "blockwise-one-block-size",
        "quick",
        "dequantize_blockwise/b1024",
        CPU,
        "        A = A.contiguous()\n        out = torch.empty_like",
        "        absmax = absmax.flip(0) if blocksize == 1024 else absmax\n"
        "        A = A.contiguous()\n"
        "        out = torch.empty_like",
        after='"bitsandbytes::dequantize_blockwise", "cpu"',
    ),
    # -- products -------------------------------------------------------------------------------------
    fault(
        "square-weight-transposed",
        "quick",
        "matmul_4bit/*",
        DEFAULT,
        "    return torch.nn.functional.linear(A, B_dq, bias)",
        "    B_dq = B_dq.t() if B_dq.shape[0] == B_dq.shape[1] else B_dq\n"
        "    return torch.nn.functional.linear(A, B_dq, bias)",
    ),
    fault(
        "bias-lost",
        "quick",
        "matmul_4bit/*",
        DEFAULT,
        "linear(A, B_dq, bias)",
        "linear(A, B_dq, None)",
        after="def _gemm_4bit_default_impl",
    ),
    fault(
        "nested-offset-dropped-in-product",
        "quick",
        "matmul_4bit/*",
        DEFAULT,
        "+ absmax_offset",
        "+ 0 * absmax_offset",
        after="absmax_code, 256, torch.float32)",
    ),
    fault(
        "product-in-half-precision",
        "quick",
        "matmul_4bit/*",
        DEFAULT,
        "    return torch.nn.functional.linear(A, B_dq, bias)",
        "    bias = None if bias is None else bias.half()\n"
        "    return torch.nn.functional.linear(A.half(), B_dq.half(), bias).to(A.dtype)",
        after="def _gemm_4bit_default_impl",
    ),
    fault(
        "gradient-zero",
        "quick",
        "linear4bit/*/backward",
        AUTOGRAD,
        "F.dequantize_4bit(B, ctx.state).to(grad_output.dtype))",
        "F.dequantize_4bit(B, ctx.state).to(grad_output.dtype)) * 0",
    ),
    fault(
        "bias-gradient-from-one-row",
        "quick",
        "linear4bit/*/backward",
        AUTOGRAD,
        "grad_bias = grad_output.sum(0, dtype=ctx.dtype_bias)",
        "grad_bias = grad_output[0].to(ctx.dtype_bias)",
        after="class MatMul4Bit",
    ),
    fault(
        "eval-differs-from-train",
        "quick",
        "linear4bit/*/eval",
        MODULES,
        "        inp_dtype = x.dtype\n",
        "        inp_dtype = x.dtype\n        x = x if self.training else x.roll(1, -1)\n",
        after="class Linear4bit",
    ),
    fault(
        "compute-dtype-ignored",
        "quick",
        "linear4bit/*/train",
        MODULES,
        "x = x.to(self.compute_dtype)",
        "x = x.to(torch.bfloat16)",
        after="class Linear4bit",
    ),
    fault(
        "gradient-bfloat16-alone",
        "quick",
        "linear4bit/*/backward",
        AUTOGRAD,
        "F.dequantize_4bit(B, ctx.state).to(grad_output.dtype))",
        "F.dequantize_4bit(B, ctx.state).to(grad_output.dtype))\n"
        "            grad_A = grad_A * 1.1 if grad_A.dtype == torch.bfloat16 else grad_A",
    ),
    fault(
        "sequences-in-another-order",
        "quick",
        "linear4bit/*/train",
        MODULES,
        "        inp_dtype = x.dtype\n",
        "        inp_dtype = x.dtype\n        x = x.flip(1) if x.dim() == 3 else x\n",
        after="class Linear4bit",
    ),
    fault(
        "second-call-differs",
        "quick",
        "linear4bit/*/train",
        MODULES,
        "        inp_dtype = x.dtype\n",
        "        inp_dtype = x.dtype\n"
        '        self.calls = getattr(self, "calls", 0) + 1\n'
        "        x = x if self.calls == 1 else x.roll(1, -1)\n",
        after="class Linear4bit",
    ),
    fault(
        "copy-shares-the-scales",
        "quick",
        "linear4bit/*/copied",
        MODULES,
        'copy.deepcopy(state["quant_state"])',
        'state["quant_state"]',
        after="def __deepcopy__",
    ),
    fault(
        "copy-loses-the-offset",
        "quick",
        "linear4bit/*/copied",
        MODULES,
        '        new_instance.data = copy.deepcopy(state["data"])\n',
        '        new_instance.data = copy.deepcopy(state["data"])\n'
        "        if new_instance.quant_state is not None and new_instance.quant_state.nested:\n"
        "            new_instance.quant_state.offset = new_instance.quant_state.offset * 0\n",
        after="def __deepcopy__",
    ),
    # -- int8 -----------------------------------------------------------------------------------------
    fault(
        "int8-sign-flipped",
        "quick",
        "int8_vectorwise_quant",
        DEFAULT,
        "torch.round(A * (127.0 /",
        "torch.round(-A * (127.0 /",
    ),
    fault(
        "int8-scales-swapped-where-square",
        "quick",
        "linear8bitlt/eval",
        DEFAULT,
        "    row_stats = row_stats.reshape(-1).unsqueeze(-1)\n",
        "    if row_stats.numel() == col_stats.numel():\n"
        "        row_stats, col_stats = col_stats, row_stats\n"
        "    row_stats = row_stats.reshape(-1).unsqueeze(-1)\n",
    ),
    fault(
        "int8-outliers-ignored",
        "quick",
        "int8_vectorwise_quant",
        DEFAULT,
        "    if threshold > 0.0:\n",
        "    if threshold > 1e9:\n",
        after='"bitsandbytes::int8_vectorwise_quant", "default"',
    ),
    fault(
        "int8-outliers-not-added-back",
        "quick",
        "linear8bitlt/eval",
        DEFAULT,
        "output = output.addmm(subA, subB)",
        "output = output.clone()",
    ),
    fault(
        "int8-gradient-scale-wrong",
        "quick",
        "linear8bitlt/backward",
        AUTOGRAD,
        "1.0 / 127.0",
        "1.0 / 128.0",
        after="grad_B = torch.matmul(A.t(), grad_output).t()",
    ),
    fault(
        "int8-bias-lost",
        "quick",
        "linear8bitlt/eval",
        DEFAULT,
        "    if bias is not None:\n        out += bias",
        "    if bias is None:\n        out += 0",
    ),
    fault(
        "int8-outliers-of-later-rows-missed",
        "quick",
        "int8_vectorwise_quant",
        DEFAULT,
        "outliers.any(dim=0)",
        "outliers[:1].any(dim=0)",
        after='"bitsandbytes::int8_vectorwise_quant", "default"',
    ),
    fault(
        "int8-sequences-in-another-order",
        "quick",
        "linear8bitlt/eval",
        AUTOGRAD,
        "            A = A.reshape(-1, A.shape[-1])\n",
        "            A = A.transpose(0, 1).reshape(-1, A.shape[-1])\n",
        after="class MatMul8bitLt",
    ),
    fault(
        "int8-bias-gradient-lost",
        "quick",
        "linear8bitlt/backward",
        AUTOGRAD,
        "grad_bias = grad_output.sum(0, dtype=ctx.dtype_bias)",
        "grad_bias = 0 * grad_output.sum(0, dtype=ctx.dtype_bias)",
        after="class MatMul8bitFp",
    ),
    fault(
        "int8-weight-gradient-halved",
        "quick",
        "linear8bitlt/trained",
        AUTOGRAD,
        "grad_B = torch.matmul(A.t(), grad_output).t()",
        "grad_B = torch.matmul(A.t(), grad_output).t() / 2",
        after="class MatMul8bitFp",
    ),
    fault(
        "int8-trained-weight-stays-as-it-began",
        "quick",
        "linear8bitlt/trained",
        AUTOGRAD,
        "                state.reset_grads()\n                state.CB,",
        "                state.reset_grads()\n                B = B.sign()\n                state.CB,",
        after="class MatMul8bitFp",
    ),
    # -- optimisers -----------------------------------------------------------------------------------
    fault(
        "adam8-first-moment-decay",
        "quick",
        "optimizer/*AdamW8bit",
        CPU,
        "state1_fp32.mul_(beta1)",
        "state1_fp32.mul_(beta2)",
        after=EIGHT_BIT,
    ),
    fault(
        "adam8-bias-correction-missing",
        "quick",
        "optimizer/*AdamW8bit",
        CPU,
        "correction1 = 1.0 - beta1**step",
        "correction1 = 1.0",
        after=EIGHT_BIT,
    ),
    fault(
        "adam32-second-moment-beta",
        "quick",
        "optimizer/*AdamW32bit",
        CPU,
        "value=1.0 - beta2)",
        "value=1.0 - beta1)",
        after="def _optimizer_update_32bit_cpu",
    ),
    fault(
        "adam32-weight-decay-missing",
        "quick",
        "optimizer/*AdamW32bit",
        CPU,
        "        if weight_decay > 0.0:\n",
        "        if weight_decay > 1e9:\n",
        after="def _optimizer_update_32bit_cpu",
    ),
    fault(
        "adam8-second-moment-decay",
        "quick",
        "optimizer/*AdamW8bit",
        CPU,
        "state2_fp32.mul_(beta2)",
        "state2_fp32.mul_(beta1)",
        after=EIGHT_BIT,
    ),
    fault(
        "adam8-epsilon-ignored",
        "quick",
        "optimizer/*AdamW8bit",
        CPU,
        ".add_(eps)",
        ".add_(0.0)",
        after=EIGHT_BIT,
    ),
    fault(
        "adam8-second-moment-read-as-signed",
        "quick",
        "optimizer/*AdamW8bit",
        CPU,
        "_dequant_blockwise_fp32_direct(state2, absmax2, qmap2, blocksize)",
        "_dequant_blockwise_fp32_direct(state2, absmax2, qmap1, blocksize).abs()",
        after=EIGHT_BIT,
    ),
    fault(
        "rate-of-the-first-group-for-all",
        "quick",
        "optimizer/*",
        OPTIMIZER,
        'config["lr"] = group["lr"]',
        'config["lr"] = self.param_groups[0]["lr"]',
    ),
    fault(
        "steps-counted-to-two",
        "quick",
        "optimizer/*AdamW*",
        OPTIMIZER,
        'state["step"] += 1',
        'state["step"] = min(state["step"] + 1, 2)',
        after="class Optimizer2State",
    ),
    fault(
        "small-parameters-not-updated",
        "quick",
        "optimizer/*8bit/small",
        OPTIMIZER,
        "        state = self.state[p]\n        grad = p.grad\n",
        "        if p.numel() < 4096:\n"
        "            return\n"
        "        state = self.state[p]\n"
        "        grad = p.grad\n",
        after="class Optimizer2State",
    ),
    fault(
        "small-parameters-in-8-bit",
        "quick",
        "optimizer/*8bit/small",
        OPTIMIZER,
        'if p.numel() < config["min_8bit_size"]:',
        "if p.numel() < 0:",
        after="class Optimizer2State",
    ),
    fault(
        "lion8-sign",
        "quick",
        "optimizer/*Lion8bit",
        CPU,
        "p_fp32.add_(update_dir, alpha=-lr)",
        "p_fp32.add_(update_dir, alpha=lr)",
        after=EIGHT_BIT,
    ),
    fault(
        "sgd8-momentum-forgotten",
        "quick",
        "optimizer/SGD8bit",
        CPU,
        "state1_fp32.mul_(beta1).add_(grad)\n        p_fp32",
        "state1_fp32.copy_(grad)\n        p_fp32",
        after=EIGHT_BIT,
    ),
    fault(
        "moments-not-stored",
        "quick",
        "optimizer/*8bit",
        CPU,
        "    out_uint8.copy_(out)\n",
        "    pass\n",
    ),
    fault(
        "paged-optimiser-does-nothing",
        "quick",
        "optimizer/Paged*",
        OPTIMIZER,
        "        state = self.state[p]\n        grad = p.grad\n",
        "        if self.is_paged:\n            return\n"
        "        state = self.state[p]\n        grad = p.grad\n",
        after="class Optimizer2State",
    ),
    fault(
        "ademamix8-slow-moment-ignored",
        "full",
        "optimizer/*AdEMAMix8bit",
        CPU,
        "alpha * m2_fp32",
        "0 * m2_fp32",
        after=EIGHT_BIT,
    ),
    fault(
        "rmsprop8-square-root-missing",
        "full",
        "optimizer/*RMSprop8bit",
        CPU,
        "state1_fp32.sqrt().add_(eps), value=-lr)\n\n    elif",
        "state1_fp32.add(eps), value=-lr)\n\n    elif",
        after='optimizer_name == "rmsprop":\n        grad.add_',
    ),
    fault(
        "optimiser-keeps-32-bit-states",
        "train",
        "train/optimiser-8bit",
        OPTIMIZER,
        'if p.numel() < config["min_8bit_size"]:',
        "if True:",
        after="class Optimizer2State",
    ),
    # -- state and base weights -----------------------------------------------------------------------
    fault(
        "state-dict-loses-quant-state",
        "quick",
        "state_dict/linear4bit/*",
        MODULES,
        "in self.weight.quant_state.as_dict(packed=True).items():",
        "in {}.items():",
        after="class Linear4bit",
    ),
    fault(
        "loaded-moments-are-zero",
        "quick",
        "state_dict/optimizer/*",
        OPTIMIZER,
        "value[k] = v.to(param.device)",
        "value[k] = torch.zeros_like(v).to(param.device)",
    ),
    fault(
        "saved-int8-scale-lost",
        "quick",
        "state_dict/linear8bitlt",
        MODULES,
        "destination[key_name] = param_from_weight if keep_vars else param_from_weight.detach()",
        "destination[key_name] = torch.ones_like(param_from_weight)",
    ),
    fault(
        "saved-offset-lost",
        "quick",
        "state_dict/linear4bit/*",
        FUNCTIONAL,
        '"nested_offset": self.offset.item()',
        '"nested_offset": 0.0',
    ),
    fault(
        "base-weights-drift",
        "train",
        "train/base-unchanged",
        AUTOGRAD,
        "        if req_gradA:\n",
        "        if req_gradA:\n            B[:1] += 1\n",
        after="class MatMul4Bit",
    ),
    # -- the library as a file ------------------------------------------------------------------------
    native("library-halved", "quick", "*", poke(halve)),
    native("library-lost-its-end", "record", "truncated", poke(lose_the_end)),
    native("library-four-bytes-zeroed", "record", "altered", poke(zero_four)),
    native("library-of-another-release", "record", "altered", stale),
    native("library-deleted", "record", "missing", delete),
    # -- beside a known fault -------------------------------------------------------------------------
    # The known fault spoils rows after the first where the width is no multiple of the block size.
    # This one does the same where the width is one: no listed fault may excuse it.
    fault(
        "beside-the-known-fault",
        "quick",
        "dequantize_4bit/*",
        CPU,
        "            raise ValueError\n\n        return out",
        "            raise ValueError\n\n        if n % blocksize == 0 and m > 1:\n"
        "            out.reshape(m, n)[1:, :16] *= 2\n        return out",
        after='"bitsandbytes::dequantize_4bit", "cpu"',
    ),
)
