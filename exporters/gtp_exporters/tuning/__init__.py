"""Searches for GTP settings: Optuna proposes, cheap measures come first, only what may be good is exported and timed.

The way of a trial: settings from the search space (``space``), an estimate of their latency (``estimating``),
divergence from the dense model on a growing part of the images (``rungs``, ``scoring``), an export and its latency
beside the dense baseline (``timing``), and the answer to Optuna (``search``, ``storage``). At the end: the front and
the choice (``front``), and the validation on images that the search never saw (``validation``). ``run`` does it all.
"""
