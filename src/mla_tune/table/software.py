"""Whether what a table was measured with is what runs.

A table of vLLM names the parts of the software that decide how fast its backend is
(`mla_tune.vllm.digests`). Where they are the same the table is true, whatever the release is
called, and where one differs it is not. A table without them, or with others than this program
looks at, is true for the minor release of vLLM that it was measured with.

A compiled library has another digest each time that it is built, as in the wheel of a release and
in its image. So those of one release count as the same, unless it is a development build.
"""

__all__ = ["compared"]

from collections.abc import Mapping

from mla_tune.registry import BACKENDS
from mla_tune.table import Table, TableFile
from mla_tune.versions import is_same_release, minor_release


def compared(
    table: Table | TableFile, installed: Mapping[str, str], digests: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """What counts of the software of a table of vLLM, and what is installed of each.

    Args:
        table: its plans say which packages beside vLLM count.
        installed: versions by name, ``vllm`` among them.
        digests: of the parts that decide how fast the table's backend is here, by name.
    """
    header = table.header
    was, now = header.software.get("vllm", "none"), installed.get("vllm", "none")
    known = header.software_digests or {}
    here = {name: digests[name] for name in _names(table) if name in digests}
    if known and known.keys() == here.keys():
        same_build = is_same_release(was, now)
        count = [name for name in known if not (same_build and name.endswith(".so"))]
        measured = {name: known[name] for name in count}
        found = {name: here[name] for name in count}
    else:
        measured, found = {"vLLM release": minor_release(was)}, {"vLLM release": minor_release(now)}
    for package in _packages(table):
        name = f"{package} release"
        measured[name] = minor_release(header.software.get(package, "none"))
        found[name] = minor_release(installed.get(package, "none"))
    return measured, found


def _names(table: Table | TableFile) -> tuple[str, ...]:
    return BACKENDS[table.header.backend].decided_by(table.header.engine.mode)


def _packages(table: Table | TableFile) -> list[str]:
    """The packages whose version decides what the table's plans are worth.

    Triton compiles a decode kernel anew in every engine, and FlashInfer's kernels are in its
    own wheel: a release of either can move the best plan with vLLM as it was. Their minor
    releases count, as vLLM's do.
    """
    plans = [plan for entry in table.entries for _, plan in entry.plans()]
    return sorted(BACKENDS[table.header.backend].packages(plans))
