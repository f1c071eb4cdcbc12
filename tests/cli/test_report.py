"""`mla-tune report`: the page, and what it says of what is not there."""

import os

from command_line import refused


def test_the_page_of_a_run_has_its_plans(cli, tuned, tmp_path):
    folder, out = tuned[0], tmp_path / "page.html"
    code, told, _ = cli("report", folder / "out", "--study-dir", folder / "study", "--out", out)
    assert code == 0
    assert told.startswith(f"{out}: 1 table, ")
    assert "left out: Night by night; what brings it: a history" in told
    assert "left out: Latency against splits" not in told
    assert "<title>mla-tune report</title>" in out.read_text(encoding="utf-8")


def test_a_recording_that_is_none_is_refused(cli, tuned, tmp_path):
    err = refused(cli, "report", tuned[0] / "out", "--recording", tmp_path / "none.jsonl.gz")
    assert "none.jsonl.gz" in err


def test_a_page_that_cannot_be_written_is_refused(cli, tuned, tmp_path):
    err = refused(cli, "report", tuned[0] / "out", "--out", tmp_path / "no" / "page.html")
    assert "page.html cannot be written" in err


def test_plots_as_files_need_a_browser(cli, tuned, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "none"))
    options = ("--out", tmp_path / "page.html", "--plots", tmp_path / "plots")
    err = refused(cli, "report", tuned[0] / "out", *options)
    assert "Chromium" in err


def test_a_page_never_replaces_what_it_is_made_of(cli, tuned, tmp_path):
    table, link = tmp_path / "t.yaml", tmp_path / "link.yaml"
    text = next((tuned[0] / "out").glob("*.yaml")).read_text(encoding="utf-8")
    table.write_text(text, encoding="utf-8")
    link.symlink_to(table)
    for out in (table, link):
        assert "would replace what it is made of" in refused(cli, "report", table, "--out", out)
    assert table.read_text(encoding="utf-8") == text


def test_names_may_hold_line_ends_and_bytes_that_are_no_text(cli, tuned, tmp_path):
    table = tmp_path / os.fsdecode(b"a\xff.yaml")
    table.write_bytes(next((tuned[0] / "out").glob("*.yaml")).read_bytes())
    out = tmp_path / "p\n\x1b[2J.html"
    code, told, _ = cli("report", table, "--out", out)
    assert code == 0
    assert r"p\n\x1b[2J.html: 1 table, " in told
    assert out.read_bytes().startswith(b"<!doctype html>")
