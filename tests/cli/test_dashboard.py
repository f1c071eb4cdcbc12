"""The dashboard on the studies of a real run, asked as a browser asks it."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from command_line import MAIN, refused

KNOBS = {"reorder_batch_threshold", "num_kv_splits", "prefill_backend"}


@pytest.fixture(scope="module")
def shown(tuned):
    """Answers by path; the command ends by Ctrl-C and has written nothing."""
    folder = tuned[0] / "study"
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    command = [*MAIN, "dashboard", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        url = re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())

        def ask(path, method="GET"):
            request = urllib.request.Request(url[0] + path, method=method)
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read()

        yield ask
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.fixture
def mixed(shown):
    """The number of the study with several knobs."""
    (number,) = [
        study["study_id"]
        for study in json.loads(shown("api/studies"))["study_summaries"]
        if " q8s70_2q1s130 #" in study["study_name"]
    ]
    return number


def test_studies_say_what_they_are_of(shown):
    studies = json.loads(shown("api/studies"))["study_summaries"]
    assert len(studies) == 3
    assert all(s["study_name"].startswith("TORCH_MLA 2 heads auto eager ") for s in studies)
    facts = {attribute["key"]: attribute["value"] for attribute in studies[0]["user_attrs"]}
    assert (facts["backend"], facts["heads"], facts["mode"]) == ("TORCH_MLA", "2", "eager")


def test_parameters_are_the_knobs_by_name(shown, mixed):
    study = json.loads(shown(f"api/studies/{mixed}"))
    assert {found["name"] for found in study["intersection_search_space"]} == KNOBS
    assert study["objective_names"] == ["latency_us"]
    for trial in study["trials"]:
        assert {param["name"] for param in trial["params"]} == KNOBS


def test_importances_are_numbers_for_all_of_them(shown, mixed):
    ((*importances,),) = json.loads(shown(f"api/studies/{mixed}/param_importances"))[
        "param_importances"
    ]
    found = {importance["name"]: importance["importance"] for importance in importances}
    assert found.keys() == KNOBS
    assert sum(found.values()) == pytest.approx(1.0)
    assert sum(value > 0 for value in found.values()) >= 2


def test_the_page_is_there_and_nothing_can_be_changed(shown, mixed):
    assert b"<html" in shown("dashboard").lower()
    for path, method in ((f"api/studies/{mixed}", "DELETE"), ("api/studies", "POST")):
        with pytest.raises(urllib.error.HTTPError, match="405"):
            shown(path, method)


def test_without_the_extra_it_says_what_to_install(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    assert "pip install 'mla-tune[dashboard]'" in refused(cli, "dashboard", tmp_path)


def test_a_missing_folder_or_a_taken_port_is_refused(cli, tmp_path):
    assert "is not there" in refused(cli, "dashboard", tmp_path / "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in refused(cli, "dashboard", tmp_path, "--port", port)
