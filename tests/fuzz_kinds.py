"""The kinds of input that are fuzzed: good ones, and all that the program does with one."""

import io
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from rich.console import Console

import fuzzing
from fake_device import DEFAULT, ENVIRONMENT, GIB, FakeBench, splits, tuner_for, workload
from fuzzing import Kind
from mla_tune.cli.commands import main
from mla_tune.cli.lookup_view import show_lookup
from mla_tune.cli.table_view import show_table
from mla_tune.cli.terminal import TerminalReporter
from mla_tune.errors import InputError
from mla_tune.measuring.recording import RecordingFile
from mla_tune.plan.plan import UNTUNED
from mla_tune.shapes import BatchShape, Workload, parse_size
from mla_tune.shapes.file import load_shapes
from mla_tune.shapes.model_config import load_model_config
from mla_tune.table import Entry, Table, TableFile, merge
from mla_tune.traffic.batching import SimulatedEngine
from mla_tune.traffic.shapes import shapes_from_traffic
from mla_tune.traffic.trace_shapes import shapes_from_trace
from mla_tune.tuning.planner import Planner
from mla_tune.tuning.run import run
from mla_tune.tuning.run_options import RunOptions
from mla_tune.tuning.study import Journal
from mla_tune.vllm.flags import vllm_args

SEEDS = Path(__file__).parent / "data" / "seeds"


def seeds(*names: str) -> tuple[bytes, ...]:
    return tuple((SEEDS / name).read_bytes() for name in names)


def read_shapes(path: Path) -> None:
    """Read a shapes file and plan a run for it."""
    shapes = load_shapes(path)
    planner = Planner(ENVIRONMENT, "cpu", 8 * GIB, shapes, path.parent / "out", str)
    planner.jobs(["TORCH_MLA"])


def read_model_config(path: Path) -> None:
    """Read a model's config.json."""
    load_model_config(path)


def read_grammar(path: Path) -> None:
    """Read a text as everything that takes a batch spec, a table's key or a length."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    readers: tuple[Callable[[str], object], ...] = (BatchShape.parse, Workload.parse, parse_size)
    refused = []
    for read in readers:
        try:
            assert str(read(text))
        except InputError as error:
            refused.append(error)
    if len(refused) == len(readers):
        raise refused[0]


def read_table(path: Path) -> None:
    """Show a table, look shapes up in it, merge an entry into it and read it again."""
    file = TableFile.load(path)
    console = Console(file=io.StringIO(), width=100)
    show_table(console, file.header, file.entries)
    table = Table.load(path)
    for batch, kv_len in ((1, 1024), (33, 1500), (10**6, 10**6)):
        show_lookup(console, table.lookup(batch=batch, kv_len=kv_len))
    table.lookup_shape(BatchShape.parse("q2k_8q1s1k"))
    entry = Entry(shape="7q7s7k", plan=UNTUNED, latency_us=1.0, default_us=1.0)
    merge(path, file.header, [entry])
    assert "7q7s7k" in {entry.shape for entry in TableFile.load(path).entries}
    if "vllm" in file.header.software:
        vllm_args([path])


def read_record(path: Path) -> None:
    """Make a shapes file of a traffic histogram, and read it."""
    shapes = path.parent / "shapes.yaml"
    shapes.write_text(shapes_from_traffic(path, [SEEDS / "graph.yaml"]), encoding="utf-8")
    load_shapes(shapes)


def read_trace(path: Path) -> None:
    """Make a shapes file of a trace, and read it."""
    shapes = path.parent / "shapes.yaml"
    text = shapes_from_trace(path, SimulatedEngine(max_model_len=8192), "deepseek-v3")
    shapes.write_text(text, encoding="utf-8")
    load_shapes(shapes)


def read_recording(path: Path) -> None:
    """Take a copy of a recording up, as a run that goes on with it, and tune from the recording."""
    folder = path.parent
    copy = shutil.copy(path, folder / f"copy{path.suffix}")
    with suppress(InputError), closing(RecordingFile(copy)) as file:
        file.begin(file.earlier.environment if file.earlier is not None else ENVIRONMENT)
    options = RunOptions(
        backends=("RECORDED",),
        out=folder / "out",
        study_dir=folder / "study",
        device="cpu",
        confirm_seconds=0.1,
        sample_timeout=1.0,
        plan_timeout=1.0,
        recording=path,
    )
    with TerminalReporter(Console(file=io.StringIO())) as reporter:
        run(options, reporter)


def read_journal(path: Path) -> None:
    """Resume a run from a journal."""
    latencies_us = {DEFAULT: 100.0, splits(1): 120.0, splits(2): 80.0, splits(8): 81.0}
    journal = Journal(path)
    try:
        bench = FakeBench(latencies_us, noise=0.01)
        tuner_for(bench, path.parent, journal).tune(workload(), None, None)
    finally:
        journal.close()


class FakeWorker(FakeBench):
    """Stands where a `WorkerBench` stands in the command: no process, the fake device."""

    def __init__(self, _device: str, log: Path, *_limits: object, **_more: object) -> None:
        super().__init__({DEFAULT: 100.0, splits(2): 80.0}, noise=0.01)
        self.log = log
        self.clock = SimpleNamespace(now=time.monotonic)

    def device_identity(self) -> str:
        return "fake"


@contextmanager
def command_folder(path: Path) -> Iterator[Path]:
    """A working folder and home of its own, with a file of each kind, for one command."""
    folder = path.parent / "a" / "b" / "c"
    shutil.rmtree(path.parent / "a", ignore_errors=True)
    folder.mkdir(parents=True)
    for name in (
        "graph.yaml",
        "eager.yaml",
        "fake.yaml",
        "served.json",
        "trace.csv",
        "recording.jsonl",
        "small.yaml",
    ):
        shutil.copy(SEEDS / name, folder)
    before = Path.cwd()
    names = ("HOME", "XDG_STATE_HOME", "MLA_TUNE_LOCK_DIR")
    places = dict.fromkeys(names, str(folder))
    os.chdir(folder)
    try:
        with mock.patch.dict(os.environ, places):
            yield folder
    finally:
        os.chdir(before)


def read_arguments(path: Path) -> None:
    """Run the command with one argument a line, on the fake device."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    arguments = [line for line in text.split("\n") if "\x00" not in line][:-1]
    shown = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="surrogateescape", write_through=True)
    with (
        command_folder(path),
        redirect_stdout(shown),
        redirect_stderr(shown),
        mock.patch.object(sys, "argv", ["mla-tune", *arguments]),
        mock.patch("mla_tune.tuning.device_bench.WorkerBench", FakeWorker),
        mock.patch.object(tempfile, "tempdir", str(path.parent)),
    ):
        main()


def _arguments(line: str) -> bytes:
    return line.replace(" ", "\n").encode() + b"\n"


_RUN = "--backend TORCH_MLA --shapes small.yaml --device cpu --out out --study-dir study "
ARGUMENTS = (
    _RUN + "--confirm-seconds 0.1 --max-tokens 4k --tensor-parallel-size 2",
    _RUN + "--confirm-seconds 0.1 --sample-timeout 30 --plan-timeout 180 --min-speedup 1.01",
    _RUN + "--confirm-seconds 0.1 --record kept.jsonl --record-rounds 4 --replace",
    "--backend RECORDED --recording recording.jsonl --out out --study-dir study "
    "--confirm-seconds 0.1",
    "show graph.yaml",
    "lookup graph.yaml --batch 32 --kv-len 1k --query-len 1 --within 1.5",
    "lookup eager.yaml --shape q2k_8q1s1k",
    "vllm-args graph.yaml eager.yaml --vllm 0.26.0",
    "shapes from-record served.json --table graph.yaml",
    "shapes from-trace trace.csv --max-num-seqs 8 --max-model-len 4k --step-ms 20 --model kimi-k2",
    "backends --device cpu",
    "recheck fake.yaml --rounds 8 --device cpu",
    "--help",
)

GRAMMAR = (
    *("q2k", "8q1s1k", "q1s8k", "2q2k_32q1s1k", "q1s{1k,4k,16k}", "32q1s{512,1k}", "4k", "512"),
    *("q8s70_2q1s130", "999999999q1", "q1s999999999k"),
)

YAML = {"suffix": ".yaml", "parse": fuzzing.yaml_parse, "dump": fuzzing.yaml_dump}
LINES = {
    "suffix": ".jsonl",
    "parse": fuzzing.json_lines_parse,
    "dump": fuzzing.json_lines_dump,
}
KINDS = {
    kind.name: kind
    for kind in (
        Kind("shapes", seeds("small.yaml", "full.yaml", "vllm.yaml"), read_shapes, **YAML),
        Kind(
            *("model configurations", seeds("config.json"), read_model_config, ".json"),
            fuzzing.json_parse,
            fuzzing.json_dump,
        ),
        Kind("grammar", tuple(text.encode() for text in GRAMMAR), read_grammar, ".txt"),
        Kind("tables", seeds("graph.yaml", "eager.yaml", "fake.yaml"), read_table, **YAML),
        Kind(
            *("records", seeds("served.json", "served-2.json"), read_record, ".json"),
            fuzzing.json_parse,
            fuzzing.json_dump,
        ),
        Kind("traces", seeds("trace.csv"), read_trace, ".csv"),
        Kind("recordings", seeds("recording.jsonl", "recording-2.jsonl"), read_recording, **LINES),
        Kind("compressed recordings", seeds("recording-2.jsonl.gz"), read_recording, ".jsonl.gz"),
        Kind("journals", seeds("begun.journal", "done.journal"), read_journal, **LINES),
        Kind("arguments", tuple(map(_arguments, ARGUMENTS)), read_arguments, ".txt"),
    )
}


def read(kind: Kind, data: bytes, folder: Path) -> InputError | None:
    """Do all that the program does with ``data``, in ``folder``; see `fuzzing.refusal`."""
    path = folder / f"input{kind.suffix}"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fuzzing.refusal(lambda: kind.read(path))
