"""The devices that a run measures on, from the names it is given on the command line."""

__all__ = [
    "ALL",
    "check_device_name",
    "check_device_names",
    "device_identity",
    "resolved_device",
    "resolved_devices",
]

import platform
import re
from pathlib import Path

from mla_tune.errors import InputError, nearest_hint

FORMS = "auto, cpu, cuda, or cuda:N with N from 0"
ALL = "all"
SEVERAL = "all, or GPUs with commas between them, such as 0,1"
_NAME = re.compile(r"auto|cpu|cuda(:\d{1,4})?", re.ASCII)
# Other programs write gpu:0 or nvidia:0; the part before the colon tells what is meant.
_MEANT = {"gpu": "cuda", "nvidia": "cuda", "cuda": "cuda", "cpu": "cpu"}


def check_device_name(name: str) -> str:
    """Return ``name`` when it has the form of a device's name, without looking for the device.

    Raises:
        InputError: it has not; says which forms are valid.
    """
    if _NAME.fullmatch(name):
        return name
    if name.isascii() and name.isdigit():
        hint = f"did you mean 'cuda:{name}'?"
    else:
        meant = _MEANT.get(name.lower().partition(":")[0])
        hint = f"did you mean {meant!r}?" if meant else nearest_hint(name, ("auto", "cpu", "cuda"))
    raise InputError(f"unknown device {name!r}", valid=FORMS, remedy=hint)


def resolved_device(name: str) -> str:
    """Return ``cpu``, ``cuda`` or ``cuda:N`` for a name, having made sure that it is there.

    Raises:
        InputError: not the name of a device, or of one that torch does not see.
    """
    check_device_name(name)
    if name == "cpu":
        return name
    import torch

    count = torch.cuda.device_count()
    if name == "auto":
        return "cuda" if count else "cpu"
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        here = ["cpu", *(f"cuda:{n}" for n in range(count))]
        raise InputError(f"device {name} is not there", valid=", ".join(here))
    return name


def check_device_names(names: str) -> str:
    """Return ``names`` when it has the form of several devices, without looking for them.

    Raises:
        InputError: it has not; says which forms are valid.
    """
    if names != ALL:
        _listed(names)
    return names


def resolved_devices(names: str) -> tuple[str, ...]:
    """The GPUs, as ``cuda:N``, that ``all`` or a list such as ``0,1`` stands for.

    Asks the driver through torch, which makes no context for that. Each is looked at by who
    measures on it.

    Raises:
        InputError: there is none, or not the form of several devices.
    """
    if names != ALL:
        return _listed(names)
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise InputError(
            "--devices all: torch sees no GPU here", remedy="--device cpu tunes on the processor"
        )
    return tuple(f"cuda:{index}" for index in range(count))


def _listed(names: str) -> tuple[str, ...]:
    found: list[str] = []
    for name in names.split(","):
        match = re.fullmatch(r"(?:cuda:)?(\d{1,4})", name.strip(), re.ASCII)
        if match is None:
            raise InputError(f"--devices {names!r}: {name!r} is no GPU", valid=SEVERAL)
        device = f"cuda:{int(match[1])}"
        if device in found:
            raise InputError(f"--devices {names!r} names {device} twice", valid=SEVERAL)
        found.append(device)
    return tuple(found)


def device_identity(device: str) -> str:
    """A name that all processes sharing a resolved device agree on, in containers too.

    For a GPU its UUID; for a CPU the machine's boot, since containers have host names of their own.
    """
    if device != "cpu":
        import torch

        return f"GPU-{torch.cuda.get_device_properties(torch.device(device)).uuid}"
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        machine = platform.node()
    return f"cpu-{machine}"
