"""Which names of a GPU are of one device to a table.

Names are compared as the driver gives them, through `device_kind`, which takes away what does not
change how fast a kernel runs:

- `` VF`` at the end: an AMD GPU seen from a virtual machine through SR-IOV. In the mode that data
  centres use the one virtual function has the whole GPU, with all its compute units, and its driver
  adds the word ("AMD Instinct MI350X VF", on which tables matched nothing in sglang #34460). A GPU
  that is cut into several virtual functions has fewer compute units, and those are compared too.
- case and repeated spaces.

All else tells devices apart:

- ``MIG 1g.10gb``: an instance of a cut NVIDIA GPU has its own share of multiprocessors, of L2 cache
  and of memory bandwidth. Even one that has all multiprocessors may have less of the memory.
- ``NVIDIA H100 80GB HBM3``, ``NVIDIA H100 PCIe``, ``NVIDIA H100 NVL``: other clocks, other memory,
  other numbers of multiprocessors. ``NVIDIA B200`` and ``NVIDIA GB200`` likewise.
- ``GRID A100-40C`` and other vGPUs: slices of time, of which a measurement sees what is left over.
"""

__all__ = ["device_kind"]

import re

_VIRTUAL_FUNCTION = re.compile(r"^(amd .*) vf$")


def device_kind(name: str) -> str:
    """The same text for all names of one device.

    Examples:
        >>> device_kind("AMD Instinct MI350X VF") == device_kind("AMD Instinct MI350X")
        True
        >>> device_kind("NVIDIA H100 80GB HBM3 MIG 1g.10gb") == device_kind("NVIDIA H100 80GB HBM3")
        False
    """
    plain = " ".join(name.lower().split())
    return _VIRTUAL_FUNCTION.sub(r"\1", plain)
