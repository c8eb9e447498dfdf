"""compare.md: the tables of a comparison as Markdown."""

from collections.abc import Iterator, Sequence

from gtp_exporters.comparing.rows import Comparison
from gtp_exporters.comparing.table import WORDS, columns, data, title
from gtp_runtime.text import one_line

MARKUP = "|[]`*_\\"


def page(comparison: Comparison, picture: str) -> str:
    """Return the page; ``picture`` is the file name of the plot."""
    return "\n".join(_lines(comparison, picture)) + "\n"


def _lines(comparison: Comparison, picture: str) -> Iterator[str]:
    yield f"# {_plain(comparison.title)}: methods compared\n"
    yield f"{_plain(data(comparison))}. Latency: of {comparison.rounds} rounds, the one with the median ratio.\n"
    yield f"![Divergence and top-1 against latency]({picture})\n"
    chosen = columns(comparison)
    for backend, precision in comparison.runs():
        yield f"## {_plain(title(comparison, backend, precision))}\n"
        yield _row([column.head for column in chosen])
        yield _row(["---"] + ["---:"] * (len(chosen) - 1))
        for row in comparison.of(backend, precision):
            yield _row([column.cell(row) for column in chosen])
        yield ""
    yield WORDS
    if comparison.sources:
        yield "\nPublished figures, top-1 in percent:\n"
        yield from (f"- {_plain(name)}: {_plain(source)}" for name, source in comparison.sources.items())
    if comparison.skipped:
        yield "\nNot compared:\n"
        yield from (f"- {_plain(entry.what)}: {_plain(entry.why)}" for entry in comparison.skipped)
    yield "\nMade by `gtp-export compare`. To compare machines, use ratios, not milliseconds."


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Return text from files as one line without Markdown's or HTML's markup in it."""
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in MARKUP else letter for letter in escaped)
