"""A few of the kills and suspensions; the full count is run by hand (see the script).

Slow, some 20 seconds: a suspension has to last longer than a time-out of the real command.
"""

from pathlib import Path

from torture_run import torture


def test_kills_and_suspensions_lose_nothing_and_publish_nothing_without_the_gate(
    tmp_path: Path,
) -> None:
    counts = torture(tmp_path, kills=2, suspensions=1, seed=1)
    assert counts["runs that ended well"] >= 2
    assert counts["entries looked at"] >= 4
