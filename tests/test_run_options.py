"""Options of backends on the command line: what backends share."""

from typing import Any, Literal

import pytest

from gtp_export.run_options import _merged

AB, BC = Literal["a", "b"], Literal["b", "c"]


def test_backends_share_the_choices_of_an_option() -> None:
    assert _merged("kind", AB, BC) == Literal["a", "b", "c"]
    assert _merged("kind", int, int) is int


@pytest.mark.parametrize(("one", "other"), [(int, bool), (AB, int), (bool, BC)])
def test_an_option_of_two_types_is_refused(one: Any, other: Any) -> None:
    with pytest.raises(TypeError, match="backends declare the option kind as"):
        _merged("kind", one, other)
