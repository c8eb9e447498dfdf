"""The JSON Schema of ``model.json``, from the types: ``python -m gtp_runtime.manifest.json_schema`` prints it.

docs/model.schema.json is this text; other languages check or generate their readers with it.
"""

import inspect
import json
import sys
from typing import Any

import msgspec

from gtp_runtime.manifest.schema import FILE_NAME, SCHEMA_VERSION, Manifest


def json_schema() -> str:
    """Return the JSON Schema (draft 2020-12) as text."""
    document = msgspec.json.schema(Manifest)
    for definition in document["$defs"].values():
        definition["description"] = inspect.cleandoc(definition["description"])
    version: dict[str, Any] = document["$defs"]["Manifest"]["properties"]["schema_version"]
    version["pattern"] = rf"^{SCHEMA_VERSION.partition('.')[0]}\."
    document["$defs"]["Manifest"]["required"].append("schema_version")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{FILE_NAME} of gtp-export, version {SCHEMA_VERSION}",
    }
    return json.dumps({**head, **document}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(json_schema().encode("utf-8"))
