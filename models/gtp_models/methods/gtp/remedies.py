"""The entries of GTP's axes that a message offers instead of one that does not fit, from the registries."""


def graphs(attribute: str, wanted: bool = True) -> str:
    """Name the graphs with edges whose attribute is true (or not, unless ``wanted``): "graph='Mixed' or graph='…'"."""
    from gtp_models.methods.gtp.axes import GRAPHS  # torch

    found = [GRAPHS[name] for name in GRAPHS.names() if GRAPHS[name].edges]
    return " or ".join(f"graph={graph.name!r}" for graph in found if bool(getattr(graph, attribute)) == wanted)


def selections_without_class_token() -> str:
    """Name the selections that need no class token: "CosSimMax, …"."""
    from gtp_models.methods.gtp.axes import SELECTIONS  # torch

    return ", ".join(name for name in SELECTIONS.names() if not SELECTIONS[name].needs_class_token)
