"""The commands: this table, and their modules, each imported when a command of it runs or shows its help.

To add a command, write ``gtp_export/commands/NAME.py`` with a function ``NAME``, and add it here. The function's
parameters are the command's, with typer's annotations; its docstring is the help. A few that belong together share a
module, which their entries name.
"""

from typing import NamedTuple

MAKE, PROVE, COMPARE, DEPLOY, ABOUT = (
    "From a model to files",
    "Prove, measure and run files",
    "Choose settings",
    "On devices",
    "What there is",
)


class Entry(NamedTuple):
    """A command: its name, the panel of the help that shows it, what it does in a line, an example, and its module."""

    name: str
    panel: str
    summary: str
    example: str
    shared: str = ""

    @property
    def function(self) -> str:
        """The name of its function."""
        return self.name.replace("-", "_")

    @property
    def module(self) -> str:
        """The name of its module: that of its function, unless it shares one."""
        return self.shared or self.function


COMMANDS = (
    Entry("export", MAKE, "Export a model to static ONNX, proven and timed.", "export deit_s --keep 0.74"),
    Entry("quantize", MAKE, "Add int8 graphs that are close to fp32.", "quantize build/deit_s --target onnxruntime"),
    Entry("build-engine", MAKE, "Build a TensorRT engine, or files for Qualcomm's NPU.", "build-engine build/deit_s"),
    Entry("convert", MAKE, "Make files for LiteRT, ExecuTorch, MNN, …", "convert build/deit_s --to litert"),
    Entry("calibrate", MAKE, "Write a recipe with calibrated thresholds.", "calibrate digits -o s.yaml --sparsity 0.5"),
    Entry("validate", PROVE, "Prove that a file answers as its model.", "validate build/deit_s --data imagenet/val"),
    Entry("bench", PROVE, "Measure latency, size, memory and cold start.", "bench build/deit_s --budget-ms p99:20"),
    Entry("predict", PROVE, "Classify images.", "predict build/deit_s cat.jpg"),
    Entry("embed", PROVE, "Write the features of images to a file.", "embed build/dinov2_s photos -o features.npz"),
    Entry("inspect", PROVE, "Show what an export is.", "inspect build/deit_s"),
    Entry("check", PROVE, "Check what a target takes of an export.", "check build/deit_s --target qnn"),
    Entry("report", PROVE, "Write a page that shows an export.", "report build/deit_s --images cat.jpg"),
    Entry("compare", COMPARE, "Compare methods with the dense model.", "compare deit_s --data imagenet/val"),
    Entry("tune", COMPARE, "Search for settings within a limit.", "tune digits -o build/tuned --max-drop 1"),
    Entry("install", DEPLOY, "Install an export, proven, in one step.", "install build/deit_s /srv/model"),
    Entry("triton", DEPLOY, "Write a repository for Triton.", "triton build/deit_s -o repository"),
    Entry("web", DEPLOY, "Write a site that runs an export in a browser.", "web build/deit_s -o site"),
    Entry("keygen", DEPLOY, "Make a key pair that signs exports.", "keygen release", "signing"),
    Entry("sign", DEPLOY, "Sign an export.", "sign build/deit_s --key release.key", "signing"),
    Entry(
        "verify",
        DEPLOY,
        "Check a signature, and every file.",
        "verify build/deit_s --trusted-key release.pub",
        "signing",
    ),
    Entry("models", ABOUT, "List the recipes.", "models", "listing"),
    Entry("methods", ABOUT, "List methods, and the entries of GTP's axes.", "methods", "listing"),
    Entry("doctor", ABOUT, "Show what is installed, and what is missing.", "doctor"),
)
