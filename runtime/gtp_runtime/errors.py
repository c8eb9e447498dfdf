"""What can go wrong on the device. Every message says what is wrong and what to do."""


class GTPRuntimeError(Exception):
    """Base of the errors that ``gtp_runtime`` raises on purpose."""


class ManifestError(GTPRuntimeError):
    """An artifact that is missing, damaged, or not what its manifest says."""


class BackendMissingError(GTPRuntimeError):
    """The engine, provider or device that would run a file is not installed here."""


class InputError(GTPRuntimeError, ValueError):
    """An argument of another type, shape or range than the runtime takes."""


class AnswerError(GTPRuntimeError):
    """Answers of a model that are not finite, so that they mean nothing."""


class NoClassesError(GTPRuntimeError):
    """Classes asked of a model that gives features."""


class ImageError(GTPRuntimeError, ValueError):
    """An image, or a folder of images, that cannot be read."""


class RandomWeightsError(GTPRuntimeError):
    """A prediction asked of a model whose weights are random."""


class RandomWeightsWarning(UserWarning):
    """A model was loaded whose weights are random: its answers mean nothing."""


class DeviceError(GTPRuntimeError):
    """CUDA or TensorRT refuses on this device."""


class EngineMismatchError(GTPRuntimeError):
    """An engine that was built for another TensorRT or another GPU than there is here."""


class KeyFileError(GTPRuntimeError):
    """A key file that cannot be read or written, or that holds no Ed25519 key."""


class SignatureError(GTPRuntimeError):
    """An artifact directory that no trusted key signed, or that was changed since.

    Attributes:
        kind: what was found: "unsigned", "key" (another key), "changed", "added", "missing" (a file), "replayed" (an
            older version), "memory" (the version that is remembered cannot be read or kept).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
