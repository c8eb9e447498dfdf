"""Image files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from image_files import IMAGES

from targets.base import Target, refused, write


def read_image(content: bytes, folder: Path) -> None:
    from gtp_runtime import Preprocessing

    plain = Preprocessing([32, 32], "shortest", [32, 32], "bicubic", [0.5] * 3, [0.5] * 3, [0, 0, 0])
    path = write(folder, "image.png", content)
    with refused():
        plain(path)
    plain(path, exif=True)


def image_seeds() -> list[bytes]:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    picture, seeds = Image.fromarray(noise), []
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "text"
    forms: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "RGB", {"exif": exif}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "LA", {}),
        ("PNG", "I;16", {}),
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "L", {"compression": "tiff_lzw"}),
        ("TIFF", "F", {}),
        ("TIFF", "1", {"compression": "group4"}),
        ("WEBP", "RGB", {}),
        ("PPM", "RGB", {}),
        ("JPEG2000", "RGB", {}),
    ]
    for form, mode, options in forms:
        stream = io.BytesIO()
        made = picture.convert("L").convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
        made.save(stream, form, **options)
        seeds.append(stream.getvalue())
    return seeds


WORDS = (b"IHDR", b"IDAT", b"\xff\xd8", b"II*\0", b"Exif", b"\xff\xff\xff\xff")
TARGET = Target(read_image, image_seeds, WORDS, IMAGES)
