"""``python -m mla_tune`` is ``mla-tune``."""

from mla_tune.cli import main

main()
