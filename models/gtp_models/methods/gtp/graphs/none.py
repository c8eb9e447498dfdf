"""None: no graph, for propagations that use none."""

from gtp_models.methods.gtp.axes import GRAPHS, Graph

GRAPHS.add(Graph("None", "no graph"))
