"""The precisions of graphs: one table, and an entry of it is all that adding one takes.

An entry says how a graph is written in a precision and recognised, which targets run it, what proves it, and how far
its answers may be from eager PyTorch's and from float32's. It is data: the exporter (``gtp_exporters.graph.precision``)
writes a form into a graph, the runtime (``gtp_runtime.parity``) holds files to their limits.
"""

from dataclasses import dataclass

TARGETS = ("tensorrt", "onnxruntime", "openvino")  # runtimes that a graph is exported for, the strictest first
# Targets that cannot sort tokens and move them by computed ids, and the form of graphs that they take
# (``gtp_exporters.options.FORMS``): WebNN, ONNX Runtime's provider for Core ML, and Rockchip's compiler.
WITHOUT_SORT = {"webnn": "ranks", "coreml": "ranks-arithmetic", "rknn": "ranks-arithmetic"}


@dataclass(frozen=True)
class Floats:
    """Computes in a float type, by ONNX's name of it ("FLOAT16"), except for what decides which tokens leave."""

    kind: str


@dataclass(frozen=True)
class SmallWeights:
    """Weights of products in so many bits, in blocks with scales of their own; all else is float32."""

    bits: int
    block: int


@dataclass(frozen=True)
class Ranges:
    """Products with constant weights in an integer type ("INT8"), by ranges that are measured on images."""

    kind: str


@dataclass(frozen=True)
class ParityLimits:
    """How far a file may be from eager PyTorch.

    Attributes:
        error: largest error as a fraction of max|logit|, on images whose kept sets agree.
        kept: smallest share of images, 0..1, whose kept sets agree in every layer.
        overlap: smallest share of tokens, corrected for chance, that leave in the same layers. Chance gives 0; measured
            as the shares of ``PRECISIONS``: fp32 and fp16 0.97 to 1, bf16 0.7 to 1.
        cosine: smallest cosine similarity of an image's answers.
        kl: largest divergence of an image's class probabilities, in nats.
        top1: smallest share of images with the same best class.
    """

    error: float
    kept: float
    overlap: float = 0.5
    cosine: float = 0.999
    kl: float = 0.01
    top1: float = 0.99


@dataclass(frozen=True)
class GateLimits:
    """How far a quantised file may be from its float32 twin, on images that calibration never saw.

    Attributes:
        agreement: smallest share of images with the twin's best class.
        drop: largest loss of top-1 against the twin, in points, where classes are known.
        divergence: largest mean Kullback-Leibler divergence from the twin's class probabilities, in nats.
        cosine: smallest mean cosine similarity of logits or features to the twin's.
        overlap: smallest share of the tokens that leave in a layer in both, corrected for chance.
    """

    agreement: float
    drop: float
    divergence: float
    cosine: float
    overlap: float


@dataclass(frozen=True)
class Precision:
    """A precision.

    Attributes:
        form: how a graph is written in it, and recognised.
        parity: how far its files may be from eager PyTorch.
        gate: how far they may be from float32 when they are made; None where parity says it all.
        targets: the targets whose runtimes run it.
        prover: the backend that proves an export of it.
    """

    form: Floats | SmallWeights | Ranges
    parity: ParityLimits
    gate: GateLimits | None = None
    targets: tuple[str, ...] = TARGETS
    prover: str = "onnxruntime"

    @property
    def calibrated(self) -> bool:
        """Whether it is made of a float32 graph by measuring ranges on images."""
        return isinstance(self.form, Ranges)


# The shares of the images whose kept sets agree in every layer: a correct file flips near-ties alone, and random
# weights have many. Measured on DeiT-Ti, DeiT-S, ViT-L (random weights, 48 photographs) and digits: fp32 92 to 100 %,
# fp16 77 to 98 %, bf16 0 to 72 %. So fp32 and fp16 leave room for chance in a pack of 8 images, and in bf16, where a
# dozen layers of near-ties let no image agree, only the overlap counts. A file that chooses other tokens agrees on no
# image. Of an image whose near-ties flip, the answers say little. In bf16 through OpenVINO on digits and the CIFAR-10
# ViT, at 0.61 to 0.75 of the MACs, the smallest cosine is 0.9990 and the largest divergence 0.0017 where kept sets
# agree, but 0.925 and 0.109 where they do not, at a mean of 0.002 and 97 to 100 % agreement in top-1.
# int8 has a gate by means over many images; the smallest cosine of digits' paper form is 0.92. Weights in few bits flip
# as many: where kept sets agree, their errors on digits are 0.02 (8 bits) and 0.07 (4 bits).
PRECISIONS: dict[str, Precision] = {
    # single precision, as models are trained
    "fp32": Precision(Floats("FLOAT"), ParityLimits(1e-3, 0.75), targets=(*TARGETS, *WITHOUT_SORT)),
    # 11 significant bits, values up to 65,504
    "fp16": Precision(Floats("FLOAT16"), ParityLimits(3e-2, 0.5), targets=(*TARGETS, *WITHOUT_SORT)),
    # 8 significant bits, the range of fp32; ONNX Runtime has no kernels for CPUs
    "bf16": Precision(Floats("BFLOAT16"), ParityLimits(1e-1, 0.0, cosine=0.9, kl=0.2, top1=0.95), prover="openvino"),
    "int8": Precision(
        Ranges("INT8"),
        ParityLimits(5e-1, 0.0, cosine=0.8, kl=1.0, top1=0.95),
        GateLimits(agreement=0.95, drop=1.0, divergence=0.02, cosine=0.99, overlap=0.5),
    ),
    "int8_weights": Precision(
        SmallWeights(bits=8, block=128),
        ParityLimits(1e-1, 0.0, cosine=0.8, kl=1.0, top1=0.95),
        targets=("onnxruntime",),
    ),
    "int4_weights": Precision(
        SmallWeights(bits=4, block=32),
        ParityLimits(3e-1, 0.0, cosine=0.8, kl=1.0, top1=0.95),
        targets=("onnxruntime",),
    ),
}


def converted_names(target: str) -> tuple[str, ...]:
    """Return the names of the precisions that a graph for a target is converted to without images, float32 first."""
    return tuple(name for name, entry in PRECISIONS.items() if not entry.calibrated and target in entry.targets)
