import pytest
from helpers import TINY_GTP, tiny_vit

from gtp_models import cost
from gtp_models.errors import ConfigError
from gtp_models.methods.gtp.config import GTPConfig
from gtp_models.schedules import make_schedule

DEEP = {"img_size": 64, "depth": 6}


def scheduled(kind: str, budget: float = 0.75) -> GTPConfig:
    return make_schedule(tiny_vit(**DEEP), TINY_GTP, kind, budget)


@pytest.mark.parametrize("kind", ["even", "early", "late", "every:2", "every:3", "aligned:4", "aligned:8"])
@pytest.mark.parametrize("budget", [0.9, 0.8])
def test_the_budget_is_met(kind: str, budget: float) -> None:
    costs = cost(tiny_vit(**DEEP), scheduled(kind, budget))
    assert abs(costs.backbone / costs.dense - budget) < 0.02


def test_macs_and_a_share_say_the_same() -> None:
    dense = cost(tiny_vit(**DEEP), TINY_GTP).dense
    assert scheduled("even", 0.75) == scheduled("even", 0.75 * dense)


def test_shapes() -> None:
    even, early, late = (scheduled(kind).num_prop for kind in ("even", "early", "late"))
    assert isinstance(even, tuple)
    assert isinstance(early, tuple)
    assert isinstance(late, tuple)
    assert max(even) - min(even) <= 1
    assert list(early) == sorted(early, reverse=True)
    assert late[-1] > late[0]
    every = scheduled("every:3").num_prop
    assert isinstance(every, tuple)
    assert [bool(amount) for amount in every] == [False, False, True] * 2


def test_aligned_counts_are_multiples() -> None:
    counts = [layer.tokens_out for layer in cost(tiny_vit(**DEEP), scheduled("aligned:8")).layers]
    assert all(count % 8 == 0 for count in counts if count < counts[0])


@pytest.mark.parametrize("kind", ["steep", "every", "every:0", "every:9", "aligned:x", "even:2"])
def test_unknown_kinds(kind: str) -> None:
    with pytest.raises(ConfigError, match="choose one of even, early, late, every:K, aligned:M"):
        scheduled(kind)


def test_a_budget_out_of_reach() -> None:
    with pytest.raises(ConfigError, match=r"no every:6 schedule comes near .* M of the dense"):
        scheduled("every:6", 0.3)
