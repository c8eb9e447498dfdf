"""Label files; the first byte says in which form the rest is read."""

from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from targets.base import MANIFEST, Target, write

NAMES = np.array([b"0\x001.png", b"1\x001.png", b"7.jpg"])
SEEDS = [
    b"\x000/1.png,0\n1/1.png,1\n7.jpg,7\n",
    b"\x00File,other,Label\n0/1.png,x,0\n1/1.png,y,1\n7,z,7\n",
    b"\x01label\timage\r\n0\t0/1.png\r\n1\t1/1.png\r\n7\t7\r\n",
    b"\x000/1.png,\xef\xbb\xbf0\nImageId,PredictionString\n7,1 85 1 49 27\n",
    b"\x020/1.png 0\n1/1.png 1\n7.jpg 7\n",
    b"\x020\n1\n7\n",
]


def read_labels(content: bytes, folder: Path) -> None:
    from gtp_runtime.images.labels import read_classes
    from gtp_runtime.manifest import parse_manifest

    suffix = (".csv", ".tsv", ".txt")[content[0] % 3] if content else ".csv"
    manifest = parse_manifest(MANIFEST.read_bytes(), MANIFEST)
    read_classes(write(folder, f"labels{suffix}", content[1:]), NAMES, manifest)


CELLS = st.sampled_from(
    [
        "0/1.png",
        "1/1.png",
        "7.jpg",
        "7",
        "0",
        "1",
        "٣",
        "",
        "label",
        "image",
        "PredictionString",
        '"',
        '"a\nb"',
        "\x1b[2J",
    ]
    + ["\ufeff", "\x85", "\u2028", "9" * 5000, "x" * 200_000, "../7.jpg", "-1", "1e3", "1 2 3", "'"]
)
ROWS = st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=6)
TEXTS = st.tuples(st.sampled_from("\x00\x01\x02"), ROWS, st.sampled_from(["\n", "\r\n", "\r", "\0"]))

TARGET = Target(
    read_labels,
    lambda: SEEDS,
    (b",", b"\n", b'"', b"\xef\xbb\xbf", b"\xff", b"label", b"0/1.png"),
    TEXTS.map(lambda parts: (parts[0] + parts[2].join(parts[1])).encode()),
)
