"""None: tokens are dropped (pruning)."""

from gtp_models.methods.gtp.axes import PROPAGATIONS, Propagation

PROPAGATIONS.add(Propagation("None", "nothing: the tokens are dropped (pruning)", lambda parted, edges: parted.kept))
