"""`mla-tune compare`, and what the documents say of the backends beside each other."""

from pathlib import Path

import pytest
from command_line import refused
from json_document import documented

ROOT = Path(__file__).parents[2]
H200 = ("--gpu", "NVIDIA H200", "--mode", "graph")
H200_0_26 = (*H200, "--vllm", "0.26")
REQUESTS = ("q1s{1k,4k,16k}", *(f"{count}q1s{{1k,4k,16k}}" for count in (32, 48, 128)))


@pytest.fixture(scope="module")
def shipped():
    return ROOT / "tuned_configs"


def test_the_answer_is_a_flag_of_vllm(cli, shipped):
    code, out, _ = cli("compare", shipped, *H200_0_26, "--model", "deepseek-v3", "--tp", 8)
    assert code == 0
    assert out.startswith("NVIDIA H200, 16 heads, KV auto, graph\n")
    *_, note, answer = out.splitlines()
    assert answer == (
        "fastest over 13 shapes by weight: FLASH_ATTN_MLA: --attention-backend FLASH_ATTN_MLA"
    )
    assert note.startswith("TRITON_MLA has no entry for 32q2s2k")
    assert "140.0 µs → 106.6 µs" in out
    assert "2.11×" in next(line for line in out.splitlines() if line.startswith("TRITON_MLA  "))


def test_the_document_shows_what_is_printed(cli, shipped):
    text = (ROOT / "docs" / "reading-tables.md").read_text()
    _, out, _ = cli("compare", shipped, *H200_0_26, "--model", "deepseek-v3", "--tp", 8)
    assert "".join(out.partition("new tokens")[1:]) in text
    table = "TRITON_MLA-NVIDIA_H100_80GB_HBM3-heads_16-kv_auto-graph-vllm_0.33.0.yaml"
    assert cli("lookup", shipped / table, "--batch", 32, "--kv-len", "4k")[1] in text


def test_what_is_not_the_same_is_told(cli, shipped):
    _, out, _ = cli("compare", shipped, "--gpu", "h100", "--heads", 16)
    assert "13 shapes are left out: the tables have other cases or weights for them" in out
    _, out, _ = cli("compare", shipped, "--gpu", "h100", "--heads", 64)
    assert "only TRITON_MLA has a table: nothing to compare it with" in out
    h100 = sorted(shipped.glob("*H100*heads_128*"))
    _, out, _ = cli("compare", *h100)
    assert "other max_model_len: FLASH_ATTN_MLA 131072, TRITON_MLA 16384" in out
    assert out.splitlines()[-1].startswith("no shape is in all of the tables")


def test_other_releases_are_named(cli, shipped, tmp_path):
    for backend, release in (("FLASHMLA", "0.26.0"), ("FLASH_ATTN_MLA", "0.27.1")):
        name = f"{backend}-NVIDIA_H200-heads_16-kv_auto-graph-vllm_0.26.0.yaml"
        text = (shipped / name).read_text().replace("vllm: 0.26.0", f"vllm: {release}")
        (tmp_path / name).write_text(text)
    _, out, _ = cli("compare", tmp_path)
    assert "other releases of vLLM: FLASHMLA with 0.26.0, FLASH_ATTN_MLA with 0.27.1" in out


def test_a_backend_of_two_releases_is_compared_in_each_with_the_others(cli, shipped):
    _, out, _ = cli("compare", shipped, *H200, "--heads", 16)
    titles = [line for line in out.splitlines() if line.startswith("NVIDIA H200")]
    assert titles[0] == "NVIDIA H200, 16 heads, KV auto, graph, vLLM 0.26.0"
    assert "NVIDIA H200, 16 heads, KV auto, graph, vLLM 0.33.0" in titles
    triton = sorted(shipped.glob("TRITON_MLA-NVIDIA_H200-heads_16-*graph*"))
    _, out, _ = cli("compare", *triton)  # alone it is the releases that are compared
    assert out.startswith("NVIDIA H200, 16 heads, KV auto, graph\n")
    assert "TRITON_MLA 0.26.0" in out
    assert "TRITON_MLA 0.33.0" in out


def test_only_tables_of_a_release(cli, shipped):
    of_graphs = cli("compare", shipped, "--vllm", "0.26", "--mode", "graph")
    assert of_graphs[1].startswith("NVIDIA H200, 128 heads, KV auto, graph\n")
    assert "0.33.0" not in of_graphs[1]
    assert cli("compare", shipped, "--vllm", "0.26.0", "--mode", "graph") == of_graphs
    assert "no table is of what you ask for" in refused(cli, "compare", shipped, "--vllm", "0.3")


@pytest.mark.parametrize("heads", [16, 128])
def test_the_documents_hold_the_figures_of_the_shipped_tables(cli, shipped, heads):
    _, out, _ = cli("compare", shipped, *H200_0_26, "--heads", heads, "--json")
    found = documented("compare", out)["comparisons"][0]
    gains = {
        table["backend"]: table["gain"]
        for table in documented("tables", cli("tables", shipped, "--json")[1])["tables"]
        if (table["gpu"], table["mode"], table["model"]["num_q_heads"], table["kv_cache_dtype"])
        == ("NVIDIA H200", "graph", heads, "auto")
        and table["vllm"] == "0.26.0"
    }
    shapes = {point["shape"]: point["times"] for point in found["shapes"]}
    assert len(found["backends"]) == 3
    for each in found["backends"]:
        times = [shapes[shape][each["name"]] for shape in REQUESTS]
        cells = [
            f"{time['default_us']:.0f} → {time['tuned_us']:.0f}"
            for time in times
            if time["tuned_us"]
        ]
        row = f"| {heads} | {each['name']} | {each['vllm']} | {' | '.join(cells)} |"
        for document in ("docs/gains.md", "docs/h200.md"):
            text = (ROOT / document).read_text()
            (line,) = [line for line in text.splitlines() if line.startswith(row)]
            assert line.endswith(f"| {gains[each['name']]:.2f}× |")


def test_no_document_sends_hopper_users_to_a_backend_that_loses(cli, shipped):
    for heads in (16, 128):
        _, out, _ = cli("compare", shipped, *H200_0_26, "--heads", heads, "--json")
        times = [point["times"] for point in documented("compare", out)["comparisons"][0]["shapes"]]
        both = [each for each in times if each["TRITON_MLA"] and each["TRITON_MLA"]["tuned_us"]]
        assert len(both) >= 10
        for each in both:
            assert each["TRITON_MLA"]["tuned_us"] > each["FLASH_ATTN_MLA"]["default_us"]
    for document in ("README.md", "docs/gains.md", "docs/tune.md"):
        assert "--attention-backend TRITON_MLA" not in (ROOT / document).read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--gpu", "B200"], "no table is of what you ask for"),
        (["--model", "deepseek-v3", "--heads", 16], "give --model or --heads"),
        (["--heads", 16, "--tp", 8], "--heads are of one GPU already"),
        (["--model", "deepseek-v3", "--tp", 3], "tensor-parallel size 3 does not divide 128"),
        (["--model", "no-such-model"], "unknown model 'no-such-model'"),
    ],
)
def test_what_no_table_is_of_is_refused(cli, shipped, options, says):
    assert says in refused(cli, "compare", shipped, *options)
