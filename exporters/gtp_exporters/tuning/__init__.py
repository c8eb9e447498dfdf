"""Searches for GTP settings: Optuna proposes, what is cheap judges first, and only what may be good is exported and timed.

The way of a trial: settings from the search space (``space``), an estimate of their latency (``estimating``), divergence
from the dense model on a growing part of the images (``rungs``, ``scoring``), an export and its latency beside the dense
baseline (``timing``), and the answer to Optuna (``study``). At the end: the front, the choice (``front``), and its
validation on images that the search never saw (``validation``); ``run`` holds it together.
"""
