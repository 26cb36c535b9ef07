"""`memory`: what a model takes, and whether it fits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnbenv.cli.options import add_offline, add_target, describes_other, target_or_here
from bnbenv.cli.outcome import Outcome
from bnbenv.errors import EXIT_FINDINGS, EXIT_OK

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from bnbenv.cli.ui import Ui
    from bnbenv.workflows.memory import Weighed

EPILOG = """\
Examples:
  bnbenv memory ./Llama-3.1-8B --seq 2048
  bnbenv memory ./Llama-3.1-8B --gpu "RTX 3060" --memory 12
  bnbenv memory mistralai/Mistral-7B-v0.3 --profile inference --seq 8192
  bnbenv memory ./config.json --profile int8 --json

Weights, adapters and optimiser states are exact to the byte; activations are estimated, the driver's
context is assumed. Exit 1 means that it does not fit.
"""
_GIB = 2**30
_WIDTH = 32  # characters of a bar
_COLOURS = {"fits": "green", "tight": "yellow", "does-not-fit": "red", None: "yellow"}
_WORDS = {"fits": "fits", "tight": "tight", "does-not-fit": "does not fit", None: "not known"}


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a directory, a config.json, or a model's id")
    use = parser.add_argument_group("what is done with it")
    use.add_argument("--profile", default="qlora", help="qlora (default), int8 or inference")
    use.add_argument(
        "--seq", type=int, metavar="TOKENS", help="of an example, or of a prompt with its answer (2048)"
    )
    use.add_argument("--batch", type=int, metavar="N", help="examples at once (1)")
    use.add_argument("--lora-rank", type=int, metavar="R", help="rank of the adapters (16)")
    use.add_argument(
        "--no-checkpointing", action="store_true", help="keep activations instead of computing them again"
    )
    use.add_argument(
        "--optim",
        choices=("paged_adamw_8bit", "adamw_8bit", "paged_adamw_32bit", "adamw_32bit"),
        help="the optimiser (paged_adamw_8bit)",
    )
    use.add_argument("--trainer", choices=("trl", "plain"), help="trl (default), or a loop of your own")
    use.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), help="of what is not quantised")
    use.add_argument(
        "--quantization", choices=("nf4", "fp4", "int8", "none"), help="instead of the profile's"
    )
    use.add_argument("--no-double-quant", action="store_true", help="scales in 32 bits")
    where = parser.add_argument_group("where")
    where.add_argument(
        "--memory", type=float, metavar="GIB", help="memory of each GPU, instead of what is free"
    )
    where.add_argument("--cpu", action="store_true", help="on the processor")
    where.add_argument(
        "--env",
        metavar="ENV",
        help="the environment whose transformers will load it "
        "(default with --measure: the active one, ./.venv, bnbenv's own)",
    )
    where.add_argument(
        "--measure",
        action="store_true",
        help="load it and train one step in ENV, and compare (not on Windows)",
    )
    add_offline(parser)
    add_target(parser)


def run(args: Namespace, ui: Ui) -> Outcome:
    """Estimate, and tell."""
    from bnbenv.judge.candidates import without_accelerator
    from bnbenv.workflows import memory

    target = target_or_here(args)
    if args.cpu:
        target = without_accelerator(target)
    use = memory.use_for(
        args.profile,
        quantisation=args.quantization,
        double=not args.no_double_quant,
        sequence=args.seq,
        batch=args.batch,
        rank=args.lora_rank,
        checkpointing=False if args.no_checkpointing else None,
        optimiser=args.optim,
        trainer=args.trainer,
        dtype=args.dtype,
        cpu=target.accelerator == "cpu",
    )
    located = None
    if args.env or args.measure:
        from bnbenv.workflows.environment import locate

        located = locate(args.env, os.environ, Path.cwd())
        ui.say(f"environment: {located}")
    weighed = memory.weigh(
        args.model,
        use,
        memory.devices_of(target, os.environ, here=not describes_other(args), memory=args.memory),
        os.environ,
        transformers=memory.transformers_of(located),
        offline=args.offline,
    )
    data = _document(weighed, target.name)
    text = _text(weighed, ui)
    if args.measure and located is not None:
        from bnbenv.workflows.measure_memory import measure

        measured = measure(weighed, located, ui, os.environ)
        data["measured"] = measured.document
        text += f"\n{measured.sentence}"
    return Outcome(
        data=data, text=text, exit_code=EXIT_FINDINGS if weighed.fit == "does-not-fit" else EXIT_OK
    )


def _document(weighed: Weighed, target: str) -> dict[str, Any]:
    estimate, use = weighed.estimate, weighed.estimate.use
    return {
        "model": weighed.model,
        "model_type": weighed.inventory.model_type,
        "parameters": weighed.inventory.elements,
        "target": target,
        "use": {
            "trains": use.trains,
            "quantization": use.quantisation.scheme,
            "double_quantization": use.quantisation.double,
            "dtype": use.dtype,
            "sequence": use.sequence,
            "batch": use.batch,
            "lora_rank": use.rank,
            "checkpointing": use.checkpointing,
            "optimiser": use.optimiser,
            "trainer": use.trainer,
        },
        "parts": [
            {
                "name": part.name,
                "description": part.words,
                "bytes": part.bytes,
                "certainty": part.certainty,
                "phases": list(part.phases),
                "pageable": part.pageable,
            }
            for part in estimate.parts
        ],
        "load_bytes": estimate.at("load"),
        "working_bytes": estimate.at(estimate.working_phase),
        "peak_bytes": estimate.peak,
        "needed_bytes": weighed.needed,
        "devices": [
            {"name": device.name, "free_bytes": device.free, "live": device.live}
            for device in weighed.devices
        ],
        "fit": weighed.fit,
        "remedies": [
            {
                "name": remedy.name,
                "description": remedy.words,
                "setting": remedy.setting,
                "peak_bytes": remedy.peak,
                "fit": remedy.fit,
            }
            for remedy in weighed.remedies
        ],
        "smallest_card_gib": weighed.smallest_card,
        "largest_model_parameters": weighed.largest_model,
        "devices_needed": weighed.devices_needed,
        "notes": list(weighed.notes),
    }


def _text(weighed: Weighed, ui: Ui) -> str:
    estimate = weighed.estimate
    working = estimate.working_phase
    rows = [
        (
            part.words,
            _size(part.bytes),
            part.certainty,
            " and ".join(phase for phase in ("load", working) if phase in part.phases),
        )
        for part in estimate.parts
    ]
    billions = weighed.inventory.elements / 1e9
    lines = [
        f"{weighed.model}: {weighed.inventory.model_type}, {billions:.2f} billion parameters",
        ui.table(rows, header=("part", "size", "how known", "when")),
        "",
        f"while loading  {_size(estimate.at('load'))}",
        f"{'while training' if estimate.use.trains else 'while writing'} {_size(estimate.at(working))}",
    ]
    lines += [
        _bar(weighed.needed, device.free, ui) + f"  {device.name}{'' if device.live else ' (in all)'}"
        for device in weighed.devices
    ]
    lines.append(ui.paint(_WORDS[weighed.fit], _COLOURS[weighed.fit], "bold") + _verdict(weighed))
    if weighed.remedies:
        reached = any(remedy.fit == "fits" for remedy in weighed.remedies)
        lines.append(
            "what would make it fit, in this order:" if reached else "what would help, and not be enough:"
        )
        lines += [
            f"  {remedy.words}: {remedy.setting}  -> {_size(remedy.peak)}, {_WORDS[remedy.fit]}"
            for remedy in weighed.remedies
        ]
    lines += weighed.notes
    return "\n".join(lines)


def _verdict(weighed: Weighed) -> str:
    card, cpu = weighed.smallest_card, weighed.estimate.use.cpu
    kind = "machine" if cpu else "card"
    enough = f"a {kind} with {card} GiB would do" if card else f"no single {kind} is large enough"
    if weighed.fit is None:
        return f": the memory of the device is not known; {enough} (--memory GIB compares)"
    if weighed.fit != "does-not-fit":
        return ""
    if weighed.devices_needed:
        enough += f", or {weighed.devices_needed} of these devices"
    if weighed.largest_model:
        enough += f"; models of up to about {weighed.largest_model / 1e9:.1f} billion parameters fit as asked"
    reached = any(remedy.fit == "fits" for remedy in weighed.remedies)
    return f": {enough}" if reached else f": the device is too small; {enough}"


def _bar(peak: int, free: int | None, ui: Ui) -> str:
    if free is None:
        return f"[{'?' * _WIDTH}] {_size(peak)} of unknown"
    filled = min(_WIDTH, round(_WIDTH * peak / free)) if free else _WIDTH
    share = peak / free if free else float("inf")
    colour = "green" if share <= 0.9 else "yellow" if share <= 1 else "red"
    bar = ui.paint("#" * filled, colour) + "." * (_WIDTH - filled)
    return f"[{bar}] {_size(peak)} of {_size(free)} free ({share:.0%})"


def _size(count: int) -> str:
    return f"{count / _GIB:.2f} GiB" if count >= _GIB // 10 else f"{count / 2**20:.1f} MiB"
