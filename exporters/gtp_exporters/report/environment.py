"""Jinja's environment of all pages and plots."""

from pathlib import Path
from typing import Any

from gtp_exporters.errors import MissingPackageError


def make_environment(templates: Path) -> Any:
    """Return Jinja's environment for the templates of a folder; whatever they show is escaped.

    Raises:
        MissingPackageError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingPackageError("jinja2 is not installed: pip install 'gtp-export[report]'") from error
    return Environment(
        autoescape=True,
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
