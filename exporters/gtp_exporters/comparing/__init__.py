"""``compare``: token reduction methods beside the dense model, on chosen backends and precisions.

methods → cases that fit the model → graphs → for each budget and backend: accuracy and latency, in one process → rows.
"""
