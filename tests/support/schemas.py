"""The schemas that ship with bnbenv, and whether a command's answer keeps to its own."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from bnbenv.errors import PROBLEM_CODES

SCHEMAS = {
    entry.name.removesuffix(".json"): json.loads(entry.read_text(encoding="utf-8"))
    for entry in files("bnbenv").joinpath("schemas").iterdir()
    if entry.name.endswith(".json")
}
# Under their own `$id` alone, as any other program would register them.
REGISTRY: Registry[Any] = Registry().with_resources(
    (schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values()
)


def validate(document: dict[str, Any]) -> None:
    name, _, version = document["schema"].removeprefix("bnbenv.").partition("/")
    assert version == "1"
    Draft202012Validator(SCHEMAS[name], registry=REGISTRY).validate(document)
    assert {problem["code"] for problem in document["problems"]} <= set(PROBLEM_CODES)
