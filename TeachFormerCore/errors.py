"""What can go wrong, each with the exit code the command line answers with.

A message is one clear sentence or two: the cause, the file, what to do about it.
"""

import errno

EXIT_SOME_FAILED = 1  # a batch in which some cases failed, or a check that found faults
EXIT_CANCELLED = 130


class TeachFormerError(Exception):
    """An internal fault, divergence, or memory that ran out on the last rung."""

    exit_code = 4


class InputError(TeachFormerError):
    """What the user gave is wrong: a file, an option, a full disk."""

    exit_code = 2


class MissingDependencyError(TeachFormerError):
    """A package has to be installed first; the message names it and the extra that brings it."""

    exit_code = 3


def missing_dependency(package: str, *, extra: str, purpose: str) -> MissingDependencyError:
    """The error for an optional package that is not there.

    Args:
        package: the name to import, e.g. ``pydicom``.
        extra: the extra of TeachFormer that brings it, e.g. ``train``.
        purpose: what it is needed for, as the end of the sentence "It is needed to ...".
    """
    return MissingDependencyError(
        f"The Python package '{package}' is not installed. It is needed to {purpose}: "
        f"pip install 'TeachFormer[{extra}]' (or pip install {package})."
    )


INFERENCE_PACKAGES = ("torch", "numpy", "SimpleITK", "safetensors")
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What a path that a user gave can meet, wherever it is first looked at.
PATH_ERRORS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EIO, errno.ESTALE)


def as_teachformer_error(error: Exception) -> TeachFormerError:
    """Any error as one with a sentence for the user and an exit code; one of ours is returned as it is."""
    if isinstance(error, TeachFormerError):
        return error
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package in INFERENCE_PACKAGES:
        return MissingDependencyError(
            f"The Python package '{package}' is not installed: in Slicer, let the TeachFormer module install it, or "
            f"torch by the PyTorch extension; elsewhere, pip install {package}."
        )
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return InputError(f"Writing failed ({error}): free some space or choose another folder.")
    if isinstance(error, OSError) and error.errno in PATH_ERRORS and error.filename is not None:
        return InputError(f"{error.filename} cannot be used ({error.strerror}): check the path and its permissions.")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return TeachFormerError("The memory ran out: close other programs, choose the device cpu, or a smaller region.")
    return TeachFormerError(
        f"An internal error ({type(error).__name__}: {error}): please report it with the lines beside this one."
    )
