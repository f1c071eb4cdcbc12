import pytest
from command_line import refused
from json_document import documented

from mla_tune.serving.cache import Cache


@pytest.mark.parametrize("command", ["serve", "prepare"])
def test_another_command_than_vllm_serve_is_refused(cli, command):
    assert "valid: vllm serve MODEL" in refused(cli, command, "--", "vllm", "bench")


@pytest.mark.parametrize("time", ["2 minutes", "-1", "1e3", "", "9999999999"])
def test_a_time_that_is_none_is_refused(cli, time):
    told = refused(cli, "serve", "--tune-for", time, "--", "vllm", "serve", "model")
    assert "valid: 90s, 10m, 12h, 30d" in told


def test_the_cache_is_listed_and_cleaned(cli, tmp_path):
    slot = Cache(tmp_path).slot("TRITON_MLA-heads_16", "an engine")
    slot.path.mkdir(parents=True)
    (slot.path / "TRITON_MLA.yaml").write_text("not a table")
    code, out, _ = cli("cache", "list", "--cache", tmp_path)
    assert code == 0
    assert f"{slot.path.name}: 0.0 MiB, used 0 days ago" in out
    assert "TRITON_MLA.yaml" in out
    (listed,) = documented("cache list", cli("cache", "list", "--cache", tmp_path, "--json")[1])[
        "slots"
    ]
    assert listed["name"] == slot.path.name
    assert cli("cache", "clean", "--cache", tmp_path, "--older-than", "30d")[1] == ""
    assert cli("cache", "clean", "--cache", tmp_path)[1] == f"removed {slot.path.name}\n"
    assert cli("cache", "list", "--cache", tmp_path)[1] == f"{tmp_path}\n"


def test_an_empty_cache_is_listed(cli, tmp_path):
    assert cli("cache", "list", "--cache", tmp_path / "none")[0] == 0
    assert cli("cache", "clean", "--cache", tmp_path / "none")[0] == 0
