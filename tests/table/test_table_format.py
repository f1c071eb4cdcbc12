"""docs/table-format.md has the keys that a table may have, and only these."""

import re
from pathlib import Path

import pytest
import yaml

from mla_tune.shapes.served_reach import ServedReach
from mla_tune.table import SCHEMA_VERSION, CaseResult, Entry, Header, Speedup, TableFile
from mla_tune.table.between import Between, Longer
from mla_tune.table.header import Device, EngineSettings

TEXT = (Path(__file__).parents[2] / "docs" / "table-format.md").read_text(encoding="utf-8")
SECTIONS = {
    "Header": Header,
    "Device": Device,
    "Engine": EngineSettings,
    "Entries": Entry,
    "Speed-up": Speedup,
    "Cases": CaseResult,
    "Served": ServedReach,
    "Between": Between,
    "Longer": Longer,
}
ROW = re.compile(r"^\| `(\w+)` \| (required|optional) \| .+ \|$", re.MULTILINE)


def section(title):
    return re.split(rf"^##+ {title}$", TEXT, flags=re.MULTILINE)[1].partition("\n#")[0]


@pytest.mark.parametrize("title", SECTIONS)
def test_a_section_has_the_keys_of_the_schema(title):
    known = {
        name: "required" if field.is_required() else "optional"
        for name, field in SECTIONS[title].model_fields.items()
    }
    if title == "Header":  # of a file; a header in memory has one by itself
        known["schema_version"] = "required"
    assert dict(ROW.findall(section(title))) == known
    assert len(ROW.findall(section(title))) == len(known)


def test_the_versions_are_those_that_are_read():
    versions = re.findall(r"^\| (\d+) \|", section("Versions"), re.MULTILINE)
    assert versions == [str(version) for version in range(1, SCHEMA_VERSION + 1)]


def test_the_example_is_a_table(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "table.yaml"
    path.write_text(example, encoding="utf-8")
    table = TableFile.load(path)
    assert set(yaml.safe_load(example)) == set(table.header.model_fields_set) | {"entries"}
    assert len(table.entries[0].cases) == 4
