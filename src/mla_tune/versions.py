"""Which versions of a package are the same for a table: one rule wherever versions are compared."""

__all__ = ["is_development_build", "is_same_release", "minor_release", "release_numbers"]

from packaging.version import Version

from mla_tune.errors import InputError


def minor_release(version: str) -> str:
    """What a version is compared by: ``0.26`` for 0.26.0, 0.26.1.post1, 0.26rc2 and 0.26.0+cu130.

    Kernels change with a minor release; a patch release keeps them, and a release candidate has
    those of the release it becomes. The local part of a release names the CUDA it was built for.
    A development build (``0.23.1rc1.dev727+gabc``, ``0.1.dev5``) is of some commit between two
    releases and is like no other, so the whole of it is compared, as of what is no version.
    """
    try:
        parsed = Version(version)
    except ValueError:  # among them InvalidVersion; int() refuses 5,000 digits
        return version
    return str(parsed) if parsed.is_devrelease else f"{parsed.major}.{parsed.minor}"


def is_same_release(version: str, other: str) -> bool:
    """Whether two versions are of one release, patch number included, built here or there.

    ``0.26.0`` and ``0.26.0+cu130`` are; a development build is of no release.
    """
    try:
        one, another = Version(version), Version(other)
    except ValueError:
        return False
    return Version(one.public) == Version(another.public) and not one.is_devrelease


def release_numbers(version: str) -> tuple[int, int, int]:
    """Major, minor and patch number: ``(0, 26, 0)`` for ``v0.26``.

    Raises:
        InputError: not a version, or one without a minor number.
    """
    try:
        parsed = Version(version)
    except ValueError:
        parsed = None
    if parsed is None or len(parsed.release) < 2:
        raise InputError(f"cannot read the version {version!r}", valid="such as 0.26.0")
    return parsed.major, parsed.minor, parsed.micro


def is_development_build(version: str) -> bool:
    """Whether ``version`` is of a commit between two releases."""
    try:
        return Version(version).is_devrelease
    except ValueError:
        return False
