"""The timing cache of the full TensorRT: read, used, kept; a cache of another TensorRT is passed over."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gtp_exporters.errors import LimitError
from gtp_exporters.tensorrt.building import _load_timing_cache, _save_timing_cache
from gtp_runtime.backends.tensorrt.flavor import Flavor


class FakeConfig:
    def __init__(self, refused: bytes = b"other version") -> None:
        self.refused, self.cache = refused, None

    def create_timing_cache(self, known: bytes) -> Any:
        return None if known == self.refused else SimpleNamespace(known=known, serialize=lambda: known + b"+kernels")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.cache


FULL, RTX = (Flavor(name, None, "10.3.0") for name in ("tensorrt", "rtx"))


@pytest.mark.parametrize(
    ("before", "after"), [(None, b"+kernels"), (b"old", b"old+kernels"), (b"other version", b"+kernels")]
)
def test_it_is_read_and_kept(tmp_path: Path, before: bytes | None, after: bytes) -> None:
    path, config = tmp_path / "deep" / "timing.cache", FakeConfig()
    if before is not None:
        path.parent.mkdir()
        path.write_bytes(before)
    assert _load_timing_cache(FULL, config, path) is config.cache
    _save_timing_cache(config, path)
    assert path.read_bytes() == after
    assert [entry.name for entry in path.parent.iterdir()] == ["timing.cache"]


def test_rtx_and_no_file_have_none(tmp_path: Path) -> None:
    assert _load_timing_cache(RTX, FakeConfig(), tmp_path / "timing.cache") is None
    assert _load_timing_cache(FULL, FakeConfig(), None) is None


def test_one_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match=r"timing cache .*--timing-cache"):
        _load_timing_cache(FULL, FakeConfig(), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(LimitError, match="Not a directory"):
        _load_timing_cache(FULL, FakeConfig(), tmp_path / "file" / "timing.cache")
