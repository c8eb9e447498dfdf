"""The measuring core: how accurate, how near to the dense model and how fast a candidate is.

One question, answered once; ``compare``, ``tune`` and ``quantize``'s gate are thin fronts of it. Files are evaluated by
``gtp_runtime.evaluation``, here as in ``validate --data`` and on a device, where none of this is installed.

    candidate   ``Candidate``: settings of a method, and ``Running``: backend, options, precision. It has a key, a
                label, and says what it needs. ``make_runnings`` makes the runnings of backends and precisions.
    graphs      ``Source``: what a model is made of. ``Graphs``: exports candidates, each once, kept by key, and
                converts them for backends that run no ONNX files.
    shards      images in rungs and shards, held-out ones, and ``Workers`` that compute.
    accuracy    ``Judge``: eager PyTorch on a growing part of the images.
                ``graph_losses``: exported graphs on a whole folder.
    latency     ``time_in_turn``: beside the dense model, in one process. ``time_plausibly``: what contradicts its MACs
                is timed again. ``footprint_of``: memory and cold start. ``measure_costs``: the time of any schedule.
    result      ``Result``: the one record, with its ``Loss`` and ``Timing``; ``front``. What is measured of outputs is
                a ``Question`` (``gtp_runtime.question``), with its ``Metric``: the divergence of class probabilities
                for logits, the relative error for all else, or one of yours.
    store       ``Store``: results as JSON lines, so that a killed run resumes; ``working``: the locked folder;
                ``figures_key``: what figures depend on.
    comparison, grid    methods, budgets, published figures; methods x budgets x backends x precisions.
    choice, space, search, tune, outcome    limit and options, what may be tried, Optuna's search in it, the choice,
                proven on other images, and its files.
    gate        limits on the loss of an int8 graph beside its float32 twin.
    pages       text, Markdown and HTML tables; SVG.

A grid of one's own, as ``benchmarks/bench.py`` has:

    graphs = Graphs(Source(recipe), folder)
    candidates = [Candidate("dense", make_plan(graphs.model, make_settings("dense")), running),
                  Candidate("tome", make_plan(graphs.model, make_settings("tome", keep=0.75)), running)]
    files = [graphs.graph(candidate) for candidate in candidates]
    timings = time_in_turn(files, [candidate.running for candidate in candidates], seconds=3, loads=3)
    losses = graph_losses(files, [candidate.running for candidate in candidates], images)

Whatever maps functions over jobs can do the work (``Workers``): this process, or the nodes of a fleet.
"""
