"""`quantize`: write a model's weights quantised, once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bnbenv.cli.options import add_yes
from bnbenv.cli.outcome import Outcome
from bnbenv.home import expanded

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui

EPILOG = """\
Examples:
  bnbenv quantize ./Llama-3.1-8B ./Llama-3.1-8B-nf4 --double-quant --env qlora
  bnbenv quantize ./Llama-3.1-8B ./Llama-3.1-8B-int8 --type int8 --env qlora
  bnbenv quantize ./Llama-3.1-8B ./out --dry-run --env qlora

Memory stays below the largest file and about a gigabyte, and no GPU is needed. After an interruption the
same command goes on.
"""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="the directory of the original weights")
    parser.add_argument("out", metavar="OUT", help="a new directory")
    parser.add_argument("--type", choices=("nf4", "fp4", "int8"), default="nf4", help="default: nf4")
    parser.add_argument("--double-quant", action="store_true", help="quantise the scales as well")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="of what is not quantised, and of products (default: bfloat16)",
    )
    parser.add_argument(
        "--env",
        metavar="ENV",
        help="the environment whose torch and transformers do it "
        "(default: the active one, ./.venv, bnbenv's own)",
    )
    parser.add_argument("--no-compare", action="store_true", help="do not load both models to compare them")
    add_yes(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Quantise."""
    from bnbenv.memory.checkpoint import read_checkpoint
    from bnbenv.memory.storage import Quantisation
    from bnbenv.workflows.environment import locate
    from bnbenv.workflows.quantize import QuantizeRequest, quantize

    source = read_checkpoint(expanded(args.model, "the model"))
    request = QuantizeRequest(
        source=source,
        out=expanded(args.out, "the output"),
        quantisation=Quantisation(scheme=args.type, double=args.double_quant and args.type != "int8"),
        dtype=args.dtype,
        logits=not args.no_compare,
        dry_run=args.dry_run,
    )
    located = locate(args.env, os.environ, Path.cwd())
    ui.say(f"environment: {located}")
    done = quantize(request, located, ui, os.environ, yes=args.yes)
    data = {
        "model": str(args.model),
        "out": str(done.out.absolute()),
        "type": args.type,
        "double_quantization": request.quantisation.double,
        "dtype": args.dtype,
        "layers": done.layers,
        "bytes": done.bytes,
        "written": done.written,
        "worst_error": done.worst,
        "logits_distance": done.distance,
        "peak_bytes": done.peak,
        "resumed_files": list(done.kept),
    }
    lines = [
        f"{done.layers} layers in {args.type}, {done.bytes / 1e9:.2f} GB"
        + (f", in {done.out}" if done.written else "; nothing was written")
    ]
    if done.worst is not None:
        lines.append(
            f"sampled blocks: {done.worst:.2f} of the error that the definition of {args.type} allows"
        )
    if done.distance is not None:
        lines.append(f"scores differ by {done.distance:.3g} from those of the model quantised while loading")
    if done.peak is not None:
        lines.append(f"memory while quantising: {done.peak / 2**30:.2f} GiB at most")
    if done.written:
        lines.append(f'\nNext:\n  AutoModelForCausalLM.from_pretrained("{done.out}", device_map="auto")')
    return Outcome(data=data, text="\n".join(lines))
