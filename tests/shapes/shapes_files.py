"""What the tests of shapes files ask of one."""

from pathlib import Path

import pytest

from mla_tune.errors import InputError
from mla_tune.shapes.file import ShapesFile, load_shapes


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_shapes(path)
    return str(caught.value)


def specs(file: ShapesFile) -> list[str]:
    return [str(case.shape) for case in file.cases]
