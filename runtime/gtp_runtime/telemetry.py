"""Keeps dependencies from reporting: importing ``gtp_runtime`` switches their telemetry off, unless the user decided.

ONNX Runtime from 1.29 on writes a device id to the user's cache, asks for a host of its maker within seconds, and its
reporting thread makes a forked child hang at its end. Ray and huggingface_hub report usage. A variable that is set in
the environment already stays as it is; ``GTP_RUNTIME_TELEMETRY=1`` leaves all of them to their makers' defaults.
ONNX Runtime decides when it is imported: an application that imports it itself does so after ``gtp_runtime``.
"""

import os

SWITCH = "GTP_RUNTIME_TELEMETRY"
OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def switch_off() -> None:
    """Set the variables that keep dependencies from reporting; it must run before they are imported."""
    if os.environ.get(SWITCH, "0") in ("", "0"):
        for name, value in OFF.items():
            os.environ.setdefault(name, value)
