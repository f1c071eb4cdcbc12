import pytest

import served_engine
from measured_engine import Settings
from served_engine import ServedEngine


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(served_engine, "_make_processes_alike", lambda: None)
    monkeypatch.syspath_prepend(tmp_path)
    return Settings(tmp_path, "TRITON_MLA", max_model_len=1024, max_num_seqs=8, utilization=0.2)


def test_an_engine_that_cannot_import_vllm_says_so(settings):
    (settings.model / "vllm.py").write_text("raise ImportError('no such kernel')\n")
    with (
        ServedEngine("default", settings) as engine,
        pytest.raises(SystemExit, match="the default engine failed: ImportError: no such kernel"),
    ):
        engine.start()


def test_an_engine_that_dies_shows_the_end_of_its_log(settings):
    dies = "import os\nprint('mla-tune: about to die', flush=True)\nos._exit(3)\n"
    (settings.model / "vllm.py").write_text(dies)
    with ServedEngine("plugin", settings) as engine:
        with pytest.raises(SystemExit, match="its process died\nmla-tune: about to die"):
            engine.start()
        assert engine.said() == ["mla-tune: about to die"]


def test_an_engine_that_was_never_started_stops(settings):
    (settings.model / "vllm.py").write_text("")
    with ServedEngine("twin", settings) as engine:
        pass
    assert engine._process.exitcode == 0
