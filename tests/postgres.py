"""A server of PostgreSQL's for tests, from Debian's package, in a folder of its own."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEBIAN = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``; Debian keeps them apart from the others."""
    here = sorted(DEBIAN.glob("*/bin/pg_ctl")) + [Path(p) for p in [shutil.which("pg_ctl")] if p]
    return here[-1].parent if here else None


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The URL of a server that is stopped at the end.

    Without the programs the test is skipped; in CI, which installs them, it fails.
    """
    found = programs()
    if found is None:
        missing = "PostgreSQL is not installed; on Debian: apt-get install postgresql"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def run(program: str, *arguments: str) -> None:
        command = [found / program, *arguments]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    run("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=200"
    log = f"{folder}/log"
    run("pg_ctl", "start", "-w", "-D", f"{folder}/data", "-l", log, "-o", options)
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        run("pg_ctl", "stop", "-D", f"{folder}/data", "-m", "immediate")
