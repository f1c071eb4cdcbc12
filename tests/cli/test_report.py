"""`mla-tune report`: the page, and what it says of what is not there."""

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
