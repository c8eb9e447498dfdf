"""What targets are made of."""

import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from gtp_runtime.errors import GTPError

ROOT = Path(__file__).parents[3]
MANIFEST = Path(__file__).parents[1] / "manifest.json"


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Attributes:
        run: raises nothing but ``GTPError``.
        seeds: returns whole inputs.
        words: bytes that inputs are made of.
        structured: a strategy that makes inputs.
    """

    run: Callable[[bytes, Path], None]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()
    structured: st.SearchStrategy[bytes] = field(default_factory=lambda: st.binary(max_size=4096))


def attempt(target: Target, content: bytes, folder: Path) -> None:
    """Run an input; our own errors are what should happen, and are one line."""
    text = "none"
    try:
        target.run(content, folder)
    except GTPError as error:
        text = str(error)
    assert text and len(text) < 2000, f"an error of {len(text)} characters"
    assert "\n" not in text and "\x1b" not in text, repr(text)


def write(folder: Path, name: str, content: bytes) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.write_bytes(content)
    return path


@cache
def scratch() -> Path:
    """Return a folder for seeds."""
    return Path(tempfile.mkdtemp(prefix="gtp-fuzz-"))


def refused() -> contextlib.AbstractContextManager[None]:
    """Pass over our errors, where more is to be tried afterwards."""
    return contextlib.suppress(GTPError)


DEEP, TWICE = "a place for brackets", "a place for more keys"  # texts that ``edits`` replaces
FILLED = {
    DEEP: [b"[" * 40 + b"]" * 40, b'{"a":' * 40 + b"1" + b"}" * 40, b"[" * 100_000, b"[[" * 500 + b"]]" * 500],
    TWICE: [b'1, "model": 1', b'"a", "files": {}', b"1e999", b"NaN", b'"\xff\xfe"', b'"\\ud800"', b"1" * 5000],
}

# Scalars that readers stumble over, and documents of them.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["../x", "/etc/passwd", "[red]", "\x1b[2J", "fp32", "model.onnx", "gtp", 10**400, 10**9, -1]),
    st.sampled_from([DEEP, TWICE]),
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


@st.composite
def edits(draw: Any, seed: Callable[[], dict[str, Any]], most: int = 3) -> bytes:
    """A document with some of its entries replaced, removed or added; it need not be whole JSON."""
    values = json.loads(json.dumps(seed()))
    for _ in range(draw(st.integers(1, most))):
        holder = values
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 3)):
                holder = holder[key]
                continue
            if draw(st.integers(0, 9)):
                holder[key] = draw(DOCUMENTS)
            else:
                del holder[key]
            break
    content = json.dumps(values).encode()
    for text, fillings in FILLED.items():
        content = content.replace(json.dumps(text).encode(), draw(st.sampled_from(fillings)))
    return content


def manifest_seed() -> dict[str, Any]:
    """Return a manifest of a graph, an engine and a dense twin."""
    values: dict[str, Any] = json.loads(MANIFEST.read_text("utf-8"))
    return values
