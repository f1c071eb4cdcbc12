import re
from dataclasses import replace
from pathlib import Path

from fake_device import ENVIRONMENT
from mla_tune.environment import Environment
from mla_tune.shapes import MlaDimensions
from mla_tune.table import Header, TableFile
from mla_tune.table.naming import table_path


def header_in(environment: Environment) -> Header:
    return Header.of(environment, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)


def test_tables_of_a_locked_clock_are_tables_of_their_own():
    locked = replace(ENVIRONMENT, locked_sm_clock_mhz=1005)
    names = [table_path(Path(), header_in(found)) for found in (ENVIRONMENT, locked)]
    assert [path.stem.removeprefix("TORCH_MLA-Fake_Device-heads_2-") for path in names] == [
        "kv_auto-eager",
        "kv_auto-eager-clock_1005",
    ]


def test_a_strange_device_name_makes_no_strange_path(tmp_path):
    header = header_in(ENVIRONMENT)
    device = header.device.model_copy(update={"name": "../GPU (R) /x\n, é=1"})
    path = table_path(tmp_path, header.model_copy(update={"device": device}))
    assert path.parent == tmp_path
    assert re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", path.name)  # a ConfigMap's key


def test_the_shipped_tables_are_named_as_a_tune_would_name_them():
    shipped = sorted((Path(__file__).parents[2] / "tuned_configs").glob("*.yaml"))
    assert shipped
    for path in shipped:
        assert path == table_path(path.parent, TableFile.load(path).header)
