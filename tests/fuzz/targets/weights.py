"""Weights files; the first byte says in which format the rest is read."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

from archives import lying
from hypothesis import strategies as st

from targets.base import DOCUMENTS, Target, write

WORDS = (b"PK\x03\x04", b"\x80\x02", b"cos\nsystem\n", b"ctorch\n", b"R.", b'"dtype"', b"[0,")


def read_weights(content: bytes, folder: Path) -> None:
    from gtp_models.checkpoint_fit import check_fit, translate
    from gtp_models.checkpoints import read_checkpoint

    suffix = (".safetensors", ".pth", ".pt")[content[0] % 3] if content else ".pth"
    checkpoint, model = read_checkpoint(write(folder, f"weights{suffix}", content[1:])), _small_model()
    check_fit(translate(checkpoint, model), model)


@cache
def _small_model() -> Any:
    from timm.models import VisionTransformer

    return VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=1, num_heads=3, num_classes=5)


def weights_seeds() -> list[bytes]:
    import torch
    from safetensors.torch import save

    state = {"pos_embed": torch.zeros(1, 10, 24), "head.weight": torch.zeros(5, 24), "x.gamma_1": torch.zeros(2)}
    seeds = [b"\x00" + save(state)]
    for content, old in ((state, False), ({"model": state}, False), (state, True), ({1: torch.zeros(1)}, False)):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=not old)
        seeds.append(b"\x01" + stream.getvalue())
    return seeds


@st.composite
def safetensors(draw: Any) -> bytes:
    """A .safetensors file whose header says what it likes."""
    numbers = st.sampled_from([0, 1, 4, 8, 24, -1, 1 << 31, 1 << 62, 1 << 64, 10**30])
    header: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(["head.weight", "a", "\x1b", "", "__metadata__"]), max_size=4)):
        kind = draw(st.sampled_from(["F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "C64", "x", None]))
        shape = draw(st.lists(numbers, max_size=3) | DOCUMENTS)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": draw(st.lists(numbers, min_size=2, max_size=2))}
    text = json.dumps(header).encode() + b" " * draw(st.integers(0, 8))
    length = max(0, len(text) + draw(st.sampled_from([0, 0, 0, 1, -1, 1 << 40])))
    return b"\x00" + length.to_bytes(8, "little") + text + bytes(draw(st.sampled_from([0, 4, 96])))


@st.composite
def entries(draw: Any) -> Any:
    """What a checkpoint may hold under a name."""
    import torch

    plain = torch.zeros(draw(st.lists(st.integers(0, 3), max_size=4)))
    kinds = [torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]
    made = {
        "plain": plain,
        "other": plain.to(draw(st.sampled_from(kinds))),
        "stretched": torch.zeros(1).expand(10**9),
        "sparse": torch.eye(3).to_sparse(),
        "compressed": torch.eye(3).to_sparse_csr(),
        "quantised": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
        "nowhere": torch.zeros(3, device="meta"),
        "parameter": torch.nn.Parameter(torch.zeros(5, 24)),
        "part": torch.zeros(10, 10)[::2, 3:],
        "a table": {"a": plain},
        "something": draw(DOCUMENTS),
    }
    return made[draw(st.sampled_from(sorted(made)))]


@st.composite
def checkpoints(draw: Any) -> bytes:
    """A file of ``torch.save``, in its new or its old form."""
    import torch

    names = st.sampled_from(["head.weight", "pos_embed", "model", "state_dict", "x.gamma_1", "\x1b", "", 1, None, (2,)])
    content: Any = {draw(names): draw(entries()) for _ in range(draw(st.integers(0, 4)))}
    stream, new = io.BytesIO(), draw(st.integers(0, 4)) > 0
    try:
        torch.save(draw(st.sampled_from([content, {"model": content}, [content]])), stream, None, 2, new)
    except Exception:  # some cannot be saved in the old form
        return b"\x01"
    return stream.getvalue()


@st.composite
def archived(draw: Any) -> bytes:
    """A checkpoint in an archive that lies, or some of whose files are missing or others."""
    return draw(st.sampled_from([b"\x01", b"\x02"])) + draw(lying(checkpoints()))


TARGET = Target(read_weights, weights_seeds, WORDS, st.one_of(safetensors(), archived()))
