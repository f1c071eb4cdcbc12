"""The shapes of JSON values that docs/json.md shows, to hold what a command prints against."""

import json
import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "json.md"
SECTION = re.compile(r"^## `mla-tune ([^`]*)`\n.*?```json\n(.*?)```", re.MULTILINE | re.DOTALL)
EXAMPLES = {name: json.loads(text) for name, text in SECTION.findall(DOCUMENT.read_text())}

# Mappings whose keys are data, and a plan, which may be a word.
OF_DATA = {"software", "software_digests", "kernels", "times", "plan", "default_plan", "unproven"}
# What is shown elsewhere.
BY_NAME = {"old", "new", "lengths"}


def documented(command, out):
    """The value that ``command`` printed: JSON alone, and of the shape in the document."""
    found = json.loads(out)
    _alike(EXAMPLES[command], found, command)
    return found


def _alike(example, found, where):
    if isinstance(example, dict) and isinstance(found, dict):
        assert set(found) == set(example), where
        for key in example:
            if key not in OF_DATA | BY_NAME:
                _alike(example[key], found[key], f"{where}.{key}")
    elif isinstance(example, list) and isinstance(found, list):
        for item in found:
            if example:
                _alike(example[0], item, f"{where}[]")
    elif example is not None and found is not None:
        number = isinstance(example, int | float) and not isinstance(example, bool)
        kinds = (int, float) if number else type(example)
        assert isinstance(found, kinds), f"{where} is {found!r}"
