"""Families of timm models: every module adds one, and an application may add its own."""

from dataclasses import replace
from pkgutil import iter_modules

import pytest
from helpers import tiny_vit
from timm.models import VisionTransformer

from gtp_models import UnsupportedModelError
from gtp_models.frame import families
from gtp_models.frame.families.forms import FAMILIES
from gtp_models.frame.patch import check_supported


def test_every_module_adds_a_family() -> None:
    modules = {module.name for module in iter_modules(families.__path__)} - {"forms"}
    assert FAMILIES.names() == ("Eva", "VisionTransformer", "transformers' ViTs")
    assert len(FAMILIES) == len(modules)


def test_an_application_adds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(VisionTransformer):
        def forward_features(self, x, attn_mask=None):  # type: ignore[no-untyped-def]
            return super().forward_features(x, attn_mask)

    monkeypatch.setattr(FAMILIES, "_entries", dict(FAMILIES._entries))
    model = tiny_vit(kind=Mine)
    with pytest.raises(UnsupportedModelError, match="Mine"):
        check_supported(model)
    family = FAMILIES["VisionTransformer"]
    FAMILIES.add(replace(family, name="AMine", holds=lambda model: isinstance(model, Mine), check=lambda model: None))
    check_supported(model)
