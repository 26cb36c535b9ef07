"""One module a command, each with ``add_arguments(parser)`` and ``run(args, ui)``; this is the list of them.

A module may also have ``EPILOG``, the examples that its ``--help`` ends with, and ``JSON_BUT``, where its
``--json`` does otherwise than print one object.
"""

from __future__ import annotations

# Group → command → one line. A command's module is its name with ``-`` written as ``_``.
GROUPS: dict[str, dict[str, str]] = {
    "Make and use environments": {
        "create": "build an environment that provably computes on this machine",
        "install": "add packages to an environment and to its lock",
        "upgrade": "take newer releases into an environment and its lock",
        "run": "run a command in an environment",
        "shell": "open a shell in an environment",
        "verify": "run the self-test of an environment",
        "kernel": "let Jupyter start an environment",
        "example": "print a training script that suits this GPU",
        "quantize": "write a model's weights quantised, once, in bounded memory",
    },
    "Ask": {
        "detect": "show what this machine is, and how it is known",
        "profiles": "list what an environment can be for",
        "resolve": "choose the best stack for a machine, without building it",
        "check": "judge a combination of releases",
        "why-not": "say why a release is not chosen",
        "matrix": "show what the releases hold",
        "diagnose": "name the cause that a log or an issue shows",
        "memory": "say what a model takes of memory, and whether it fits",
    },
    "Share environments": {
        "lock": "write the fewest standard locks that serve many machines",
        "sync": "build this machine's environment from a lock",
        "bundle": "fetch what a lock names, for a site without a network",
    },
    "Look after environments": {
        "doctor": "find what is wrong with an environment",
        "repair": "mend an environment, and leave it as it was if that fails",
        "report": "write what a maintainer needs to know, without secrets",
        "split": "take an environment apart whose packages break each other",
        "list": "list the environments",
        "info": "show one environment",
        "path": "print where an environment is",
        "rollback": "switch back to the generation before, or to another",
        "remove": "delete an environment",
        "prune": "delete old generations that nothing uses",
        "clean": "delete half-made generations, old logs and caches of bnbenv's own",
    },
    "bnbenv itself": {
        "config": "show and change the configuration",
        "completion": "print a completion script for a shell",
        "self": "manage bnbenv itself",
    },
}

COMMANDS: dict[str, str] = {name: line for group in GROUPS.values() for name, line in group.items()}


def module_name(command: str) -> str:
    """The full name of the module that holds `command`."""
    return f"{__name__}.{command.replace('-', '_')}"
