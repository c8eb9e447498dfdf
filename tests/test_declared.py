"""Names that are read from the source are those of the registries, and no model of timm's is refused."""

import json

import pytest
import timm
from artifacts import python

import gtp_models.lvvit  # noqa: F401 - registers LV-ViT with timm
from gtp_models.methods.gtp.graphs import GRAPHS
from gtp_models.methods.gtp.propagations import PROPAGATIONS
from gtp_models.methods.gtp.selections import SELECTIONS

AXES = {"selection": SELECTIONS, "graph": GRAPHS, "propagation": PROPAGATIONS}
READ = "from gtp_models.declared import axis_names, check_timm; import json"


@pytest.mark.parametrize("axis", AXES)
def test_the_entries_of_an_axis(axis: str) -> None:
    ran = python(f"{READ}; print(json.dumps([axis_names({axis!r}), 'torch' in sys.modules]))")
    assert json.loads(ran.out) == [list(AXES[axis].names()), False], ran.err


@pytest.mark.full
def test_every_model_of_timms_passes() -> None:
    names = [*timm.list_models(), *timm.list_pretrained("*vit_small*")]
    code = f"{READ}; names = json.loads(sys.argv[1]); [check_timm(name) for name in names]"
    ran = python(f"{code}; print(len(names), 'torch' in sys.modules)", json.dumps(names))
    assert ran.out.split() == [str(len(names)), "False"], ran.err
