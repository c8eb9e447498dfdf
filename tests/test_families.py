"""Families of timm models are found by their modules."""

from pkgutil import iter_modules

from gtp_models.frame import families


def test_every_module_that_defines_a_family_is_found() -> None:
    names = {module.name for module in iter_modules(families.__path__)} - {"forms"}
    assert {family.name for family in families.FAMILIES} == {"Eva", "VisionTransformer"}
    assert len(families.FAMILIES) == len(names)
