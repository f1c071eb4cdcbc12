import io
import re
from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console

from fake_device import DEFAULT, ENVIRONMENT, splits, workload
from mla_tune.cli.lookup_view import show_lookup
from mla_tune.cli.standard_streams import StandardStream
from mla_tune.cli.table_view import show_table
from mla_tune.cli.terminal import TerminalReporter
from mla_tune.errors import WorkloadFailure
from mla_tune.plan.compilation import Compilation
from mla_tune.plan.kernel_resources import KernelResources
from mla_tune.plan.plan import UNTUNED, Plan
from mla_tune.session import Setup
from mla_tune.shapes import BatchShape, MlaDimensions
from mla_tune.table import Entry, Header, Lookup, Speedup
from mla_tune.tuning.job import TableJob
from mla_tune.tuning.result import Cost
from mla_tune.tuning.study import Outcome

HEADER = Header.of(ENVIRONMENT, "TORCH_MLA", MlaDimensions(2), "auto", "eager", 4096)
WORKLOAD = workload("8q1s1k")
ASKED = BatchShape.parse("8q1s1k")
JOB = TableJob(Setup("TORCH_MLA", MlaDimensions(2)), (WORKLOAD,), HEADER, Path("out/a[/b].yaml"))
ENTRY = Entry(
    shape="8q1s1k",
    plan=splits(2),
    default_plan=DEFAULT,
    ties=(splits(1),),
    latency_us=50.0,
    default_us=100.0,
    speedup=Speedup(median=2.0, low=1.9, high=2.1),
    note="num_kv_splits=8 failed (raised: [Errno 2] no [/such] file)",
)


def shown(write, *, terminal=False, width=120):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
    write(console)
    return console.file.getvalue()


def whole_run(console):
    with TerminalReporter(console) as reporter:
        reporter.skipped("device: skipped [/dev/null]")
        reporter.begun([JOB])
        reporter.started(JOB, WORKLOAD)
        reporter.planned(WORKLOAD, 3)
        reporter.tried(WORKLOAD, Outcome(DEFAULT, None, "raised: [/x]"), None)
        reporter.tried(WORKLOAD, Outcome(splits(2), 50.0), 50.0)
        reporter.confirming(WORKLOAD, [DEFAULT, splits(2)], 8)
        reporter.decided(JOB, WORKLOAD, ENTRY)
        reporter.failed(JOB, WORKLOAD, WorkloadFailure("boom [/x] [COUNT]q[k]"))
    reporter.summary()
    assert reporter.num_decided == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_shows_what_happened_brackets_and_all(terminal):
    text = shown(whole_run, terminal=terminal)
    for part in (
        "device: skipped [/dev/null]",
        "1 batch shape for 1 table",
        "num_kv_splits=2, 50.0 µs, 2.00× the default's speed",
        "boom [/x] [COUNT]q[k]",
        "[Errno 2] no [/such] file",
        "written to out/a[/b].yaml",
    ):
        assert part in text


def test_the_live_line_shows_which_plan_and_the_best_so_far():
    def halfway(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([JOB])
            reporter.started(JOB, WORKLOAD)
            reporter.planned(WORKLOAD, 3)
            reporter.tried(WORKLOAD, Outcome(DEFAULT, 100.0), 100.0)
            reporter.tried(WORKLOAD, Outcome(splits(2), 50.0), 50.0)
            reporter._progress.refresh()

    text = shown(halfway, terminal=True, width=200)
    assert "TORCH_MLA 2 heads eager 8q1s1k" in text
    assert "plan 2/3, best 50.0 µs (num_kv_splits=2)" in text


def test_a_narrow_live_line_keeps_the_count_and_the_shape():
    def halfway(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([JOB])
            reporter.started(JOB, WORKLOAD)
            reporter.planned(WORKLOAD, 3)
            reporter.tried(WORKLOAD, Outcome(splits(2), 50.0), 50.0)
            reporter._progress.refresh()

    last = shown(halfway, terminal=True, width=48).split("\r")[-2]
    assert "0/1" in last
    assert "TORCH_MLA 2 heads eager 8q1s1k" in last
    assert "num_kv_splits" not in last


def test_the_end_says_what_improved_what_was_measured_before_and_what_to_do():
    kept = ENTRY.model_copy(update={"plan": UNTUNED, "speedup": None, "shape": "16q1s1k"})
    other = workload("16q1s1k")
    job = TableJob(JOB.setup, (WORKLOAD, other, workload("32q1s1k")), HEADER, JOB.path)

    def run(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([job])
            reporter.started(job, WORKLOAD)
            reporter.tried(WORKLOAD, Outcome(splits(2), 50.0), 50.0)
            reporter.decided(job, WORKLOAD, ENTRY)
            reporter.started(job, other)
            reporter.remembered(other, datetime(2026, 11, 20, 9, 5))
            reporter.decided(job, other, kept)
            reporter.failed(job, job.workloads[2], WorkloadFailure("boom"))
        reporter.summary()

    text = shown(run, width=200)
    assert "1 of 2 batch shapes improved, all together 1.41× in the geometric mean" in text
    assert "1 keeps the default; 1 batch shape failed" in text
    told = "taken from the study of an earlier run, not measured today: 1"
    assert f"{told} (measured 2026-11-20 09:05)" in text
    assert "16q1s1k: default, 50.0 µs, measured 2026-11-20 09:05" in text
    assert "mla-tune show 'out/a[/b].yaml'" in text


def test_a_brief_run_of_many_shapes_has_a_line_for_some_alone():
    workloads = tuple(workload(f"{batch}q1s1k") for batch in range(1, 121))
    job = TableJob(JOB.setup, workloads, HEADER, JOB.path)

    def run(console):
        with TerminalReporter(console, is_brief=True) as reporter:
            reporter.begun([job])
            for each in workloads:
                reporter.started(job, each)
                reporter.decided(job, each, ENTRY.model_copy(update={"shape": str(each)}))
        reporter.summary()

    text = shown(run)
    assert "50 of 120 batch shapes" in text
    assert "120 of 120 batch shapes improved, all together 2.00×" in text
    assert len(text.splitlines()) < 12


def test_a_table_shows_plans_figures_and_ties():
    text = shown(lambda console: show_table(console, HEADER, [ENTRY]))
    for part in ("TORCH_MLA, Fake Device", "8q1s1k", "num_kv_splits=2", "100.0", "2.00×"):
        assert part in text


def test_a_plan_that_is_not_proven_is_shown_as_such():
    row = {"shape": "8q1s1k", "plan": "default", "unproven": splits(2), "latency_us": 50.0}
    entry = Entry.model_validate(row)
    text = shown(lambda console: show_table(console, HEADER, [entry]))
    assert "not measured" in text
    assert "default (unproven: num_kv_splits=2)" in text
    found = Lookup(ASKED, entry, None, 1.0)
    assert "unproven: num_kv_splits=2" in shown(lambda console: show_lookup(console, found))


@pytest.mark.parametrize(
    ("lookup", "says"),
    [
        (
            Lookup(ASKED, ENTRY, splits(2), 1.0),
            "hit: 8q1s1k: num_kv_splits=2 (entry 8q1s1k, ex",
        ),
        (
            Lookup(ASKED, ENTRY, splits(2), 1.25),
            "nearest, off by a factor 1.25",
        ),
        (Lookup(ASKED, None, None, missed=lambda: "too far"), "miss: 8q1s1k: too far"),
    ],
)
def test_a_lookup_says_hit_or_miss(lookup, says):
    assert says in shown(lambda console: show_lookup(console, lookup))


HOSTILE = "[/x][bold]\x1b[2J\x1b]0;owned\x07\nnext \u202e :smile:"
SHOWN = r"[/x][bold]\x1b[2J\x1b]0;owned\x07\nnext \u202e :smile:"


@pytest.mark.parametrize("terminal", [False, True])
def test_text_from_a_table_is_printed_as_data(terminal):
    header = HEADER.model_copy(
        update={
            "device": HEADER.device.model_copy(update={"name": HOSTILE}),
            "kv_cache_dtype": HOSTILE,
            "software": {"vllm": HOSTILE},
        }
    )
    plan = Plan(prefill_backend=HOSTILE)
    entry = ENTRY.model_copy(update={"note": HOSTILE, "plan": plan})
    text = shown(lambda console: show_table(console, header, [entry]), terminal=terminal, width=400)
    assert text.count(SHOWN) == 5
    text += shown(
        lambda console: show_lookup(console, Lookup(ASKED, entry, plan, 1.0)),
        terminal=terminal,
    )
    text += shown(
        lambda console: show_lookup(console, Lookup(ASKED, None, None, missed=lambda: HOSTILE)),
        terminal=terminal,
    )
    assert text.count(SHOWN) == 7
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_said_of_a_run_is_printed_as_data(terminal):
    def hostile(console):
        with TerminalReporter(console) as reporter:
            reporter.skipped(HOSTILE)
            reporter.begun([JOB])
            reporter.started(JOB, WORKLOAD)
            reporter.tried(WORKLOAD, Outcome(Plan(prefill_backend=HOSTILE), 50.0), 50.0)
            reporter.decided(JOB, WORKLOAD, ENTRY)
            reporter.failed(JOB, WORKLOAD, WorkloadFailure(f"{HOSTILE}"))
            reporter.unpublished(JOB, [ENTRY], WorkloadFailure("disk full"))
        reporter.summary()

    text = shown(hostile, terminal=terminal, width=300)
    # What was skipped is one line; an error has lines of its own.
    assert text.count(SHOWN) >= 1
    assert r"[/x][bold]\x1b[2J\x1b]0;owned\x07" in text.replace(SHOWN, "")
    assert "\x1b[2J" not in text
    assert "\x1b]0;" not in text
    assert "1 decided batch shape is not in the table: disk full" in text
    assert "written to" not in text


def test_columns_stand_below_each_other_and_one_long_cell_moves_no_other_row():
    long = Plan(prefill_backend="x" * 500)
    entries = [ENTRY, ENTRY.model_copy(update={"shape": "128q1s128k", "plan": UNTUNED})]
    lines = shown(lambda console: show_table(console, HEADER, entries), width=40).splitlines()
    assert lines[1].index("plan") == lines[3].index("num_kv_splits") == lines[4].index("default")
    entries.append(ENTRY.model_copy(update={"plan": long}))
    lines = shown(lambda console: show_table(console, HEADER, entries), width=40).splitlines()
    assert len(lines[3]) < 200
    assert long.get("prefill_backend") in lines[5]


def test_a_run_says_that_an_earlier_entry_stays_and_why():
    def run(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([JOB])
            reporter.started(JOB, WORKLOAD)
            reporter.kept(WORKLOAD, "8 rounds are too few [/x]")

    told = "no verdict this time (8 rounds are too few [/x]); the entry of an earlier run stays"
    assert told in shown(run)


def test_what_a_published_kernel_takes_is_said_once():
    taken = KernelResources(168, 12, 40_960)

    def run(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([JOB])
            reporter.started(JOB, WORKLOAD)
            reporter.won(WORKLOAD, ENTRY.plan, taken)
            reporter.nominated(JOB, WORKLOAD, ENTRY)
            reporter.started(JOB, WORKLOAD)
            reporter.decided(JOB, WORKLOAD, ENTRY)
            reporter.won(WORKLOAD, splits(1), taken)
            reporter.decided(JOB, WORKLOAD, ENTRY)

    said = shown(run)
    assert "2.00× the default's speed in this process, 168 registers, spills 12" in said
    assert said.count("spills") == 1


def test_a_plan_that_waits_for_other_processes_is_shown_and_counted_once():
    decided = ENTRY.model_copy(update={"processes": 3})

    def run(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([JOB])
            reporter.started(JOB, WORKLOAD)
            reporter.nominated(JOB, WORKLOAD, ENTRY)
            assert (reporter.num_decided, len(reporter._whole.costs)) == (0, 0)
            reporter.renewed(JOB, 1)
            reporter.started(JOB, WORKLOAD)
            reporter.decided(JOB, WORKLOAD, decided)
            assert (reporter.num_decided, len(reporter._whole.costs)) == (1, 0)

    said = shown(run)
    assert "num_kv_splits=2, 50.0 µs, 2.00× the default's speed in this process" in said
    assert "another process confirms 1 batch shape" in said
    assert "num_kv_splits=2, 50.0 µs, 2.00× the default's speed over 3 processes" in said


def test_a_default_that_does_not_work_is_said_once_a_table():
    wrong = ENTRY.model_copy(
        update={
            "plan": UNTUNED,
            "unproven": splits(2),
            "default_us": None,
            "speedup": None,
            "note": "the default could not be measured: wrong result: relative error 0.66",
        }
    )

    def run(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([JOB])
            reporter.started(JOB, WORKLOAD)
            for entry in (ENTRY, wrong, wrong):
                reporter.decided(JOB, WORKLOAD, entry)

    text = shown(run)
    assert text.count("TORCH_MLA: what vLLM does untuned does not work here") == 1
    assert text.count("relative error 0.66") == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_each_of_several_devices_has_a_line_and_its_name_before_what_it_decides(terminal):
    def side_by_side(console):
        with TerminalReporter(console) as reporter:
            first, second = reporter.on("cuda:0"), reporter.on("cuda:1")
            reporter.begun([JOB])
            for view in (first, second):
                view.started(JOB, WORKLOAD)
                view.planned(WORKLOAD, 3)
            first.tried(WORKLOAD, Outcome(DEFAULT, 100.0), 100.0)
            second.nominated(JOB, WORKLOAD, ENTRY)
            second.decided(JOB, WORKLOAD, ENTRY)
            first.failed(JOB, WORKLOAD, WorkloadFailure("boom"))
            reporter._progress.refresh()
        assert reporter.num_decided == 1
        reporter.summary()

    text = shown(side_by_side, terminal=terminal, width=400)
    assert "cuda:1: TORCH_MLA 2 heads eager 8q1s1k: num_kv_splits=2" in text
    assert "cuda:0: TORCH_MLA 2 heads eager 8q1s1k: boom" in text
    assert "written to" in text
    if terminal:
        assert "plan 1/3" in text


@pytest.mark.parametrize(
    ("launches", "told"),
    [((Plan(block_n=64, num_warps=8),), "block_n=64 num_warps=8"), ((), "none is faster")],
)
def test_the_search_for_launches_and_what_was_compiled_are_told(launches, told):
    def searched(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([JOB])
            reporter.searching(JOB, WORKLOAD, 23)
            reporter.compiled(WORKLOAD, Compilation(23, 4.0))
            reporter.launches_found(JOB, launches)
            reporter.spent(JOB, Cost(412.0, 31.4, 240))

    text = shown(searched)
    assert f"launches to tune over: {told}" in text
    assert "412 s, 31 s of them for 240 kernels compiled ahead" in text


def test_tables_that_are_found_due_as_a_night_goes_are_added_and_each_shape_counts_once():
    def write(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([JOB, JOB])
            reporter.begun([JOB])
            for device in ("cuda:0", "cuda:1"):  # the first was lost before its table was written
                view = reporter.on(device)
                view.started(JOB, WORKLOAD)
                view.decided(JOB, WORKLOAD, ENTRY)
            (task, *_) = reporter._progress.tasks
            assert (task.completed, task.total) == (1, 3)

    assert "2 batch shapes for 2 tables\n1 batch shape for 1 table" in shown(write)


def all_steps(console, **how):
    """A run of one shape, with its live line drawn after each step."""
    device = "cuda:0 is in use by another run: 1 since 12:00; waiting for it to end"
    with TerminalReporter(console, **how) as reporter:
        draw = reporter._progress.refresh
        draw()
        for step in (
            lambda: reporter.skipped(device),
            lambda: reporter.begun([VLLM_JOB]),
            lambda: reporter.opening(VLLM_JOB),
            lambda: reporter.started(VLLM_JOB, WORKLOAD),
            lambda: reporter.planned(WORKLOAD, 1),
            lambda: reporter.compiling(WORKLOAD, 33),
            lambda: reporter.compiled(WORKLOAD, Compilation(1, 4.0)),
            lambda: reporter.tried(WORKLOAD, Outcome(splits(2), 50.0), 50.0),
            lambda: reporter.confirming(WORKLOAD, [DEFAULT], 1),
            lambda: reporter.nominated(VLLM_JOB, WORKLOAD, ENTRY),
            lambda: reporter.renewed(VLLM_JOB, 1),
            lambda: reporter.opening(VLLM_JOB),
            lambda: reporter.decided(VLLM_JOB, WORKLOAD, ENTRY),
        ):
            step()
            draw()
    reporter.summary()


VLLM_HEADER = HEADER.model_copy(update={"backend": "TRITON_MLA"})
VLLM_JOB = TableJob(
    Setup("TRITON_MLA", MlaDimensions(2), mode="graph"), (WORKLOAD,), VLLM_HEADER, Path("t.yaml")
)
STEPS = (
    "a worker imports what the backends need",
    "waiting for it to end",
    "building a session, which imports vLLM",
    "1 plan ",
    "compiling kernels of 33 plans",
    "compiled 1 kernel in 4 s",
    "plan 1/1, best 50.0 µs (num_kv_splits=2)",
    "racing 1 plan, 1 round done",
    "another process starts",
)


def test_imports_compiling_and_all_else_that_takes_long_are_steps_of_the_live_line():
    text = shown(all_steps, terminal=True, width=200)
    assert [step for step in STEPS if step not in text] == []
    assert "TRITON_MLA 2 heads graph \x1b" in text  # while its session is built


def test_where_the_time_goes_is_said_if_it_is_asked_for():
    def verbose(console):
        all_steps(console, is_verbose=True)

    assert "\n  0 s\n" in shown(verbose)
    assert shown(verbose).splitlines()[-1].startswith("time: 0 s")
    assert "time: " not in shown(all_steps)


COLOURS = re.compile(r"\x1b\[[\d;]*(?:3[0-8]|4[0-8]|9\d)[\d;]*m")


def test_no_color_leaves_no_colour_in_the_live_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert COLOURS.search(shown(all_steps, terminal=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert COLOURS.search(shown(all_steps, terminal=True)) is None


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    text = shown(all_steps, terminal=True)
    assert "\x1b" not in text
    assert "num_kv_splits=2, 50.0 µs" in text


def test_an_ascii_terminal_gets_ascii():
    taken = io.BytesIO()
    stream = StandardStream(io.TextIOWrapper(taken, encoding="ascii"), lambda _error: None)
    all_steps(Console(file=stream, force_terminal=True, width=100))
    stream.flush()
    text = taken.getvalue().decode("ascii")
    assert "plan 1/1, best 50.0 us" in text
    assert "2.00x the default's speed" in text
    assert r"\u" not in text


@pytest.mark.parametrize(
    ("backend", "plan", "told"),
    [
        ("TRITON_MLA", splits(2), f"MLA_TUNE_TABLES='{Path('out/a[').absolute()}' vllm serve"),
        ("TRITON_MLA", UNTUNED, None),
        ("TORCH_MLA", splits(2), None),
    ],
)
def test_how_to_serve_is_said_where_an_engine_gets_a_plan(backend, plan, told):
    job = TableJob(Setup(backend, MlaDimensions(2)), (WORKLOAD,), HEADER, JOB.path)
    entry = ENTRY.model_copy(update={"plan": plan})

    def run(console):
        with TerminalReporter(console) as reporter:
            reporter.begun([job])
            reporter.started(job, WORKLOAD)
            reporter.decided(job, WORKLOAD, entry)
        reporter.summary()

    text = shown(run)
    assert "to read them: " in text
    assert ("to serve with them" in text) == (told is not None)
    assert told is None or told in text
