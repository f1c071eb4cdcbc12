"""Links that another user has put into a shared folder, and that must not be written through."""

__all__ = ["is_planted"]

import os
from pathlib import Path


def is_planted(link: Path) -> bool:
    """Whether a link is neither ours nor of the owner of the folder that it lies in.

    That is Linux's own rule for sticky folders (protected_symlinks), kept in every folder.
    """
    return link.lstat().st_uid not in {os.geteuid(), _owner_of_folder(link)}


def _owner_of_folder(path: Path) -> int:
    return path.parent.stat().st_uid
