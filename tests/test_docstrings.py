"""The examples in the docstrings of public entry points run as they are written."""

import doctest
import importlib

import pytest

MODULES = [
    "gtp_models._torchvision",
    "gtp_models.frame.patch",
    "gtp_models.methods.apply",
    "gtp_models.methods.gtp.config",
    "gtp_models.plan",
    "gtp_models.recipes",
    "gtp_models.weights",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), verbose=False)
    assert results.attempted > 0
    assert results.failed == 0
