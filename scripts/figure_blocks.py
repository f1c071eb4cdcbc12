"""What stands in the marked blocks of the documents."""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from check_table_everywhere import Summary as Judgement
from coverage_document import answered_by, counted, eager_in_use, gpu_of, graphs_in_use
from figure_material import SHOWN_KV_LEN, Material
from mla_tune.catalogue.contest import Contest
from mla_tune.catalogue.points import Point
from mla_tune.catalogue.summary import Summary
from mla_tune.catalogue.timing import Timing
from mla_tune.errors import InputError
from mla_tune.measuring.recording import Recording
from mla_tune.shapes import format_size
from mla_tune.table import Entry, Table, TableFile
from table_on_recording import judged

DATA = Path(__file__).parents[1] / "tests" / "data"
HELD_OUT = (
    "h100/graph_triton_mla_held_out",
    "h100/graph_triton_mla_16",
    "h100/graph_triton_mla_128",
    "h100/graph_flash_attn_mla_16",
    "h100/graph_flash_attn_mla_128",
    "h200/graph_triton_mla_16",
)
"""Recordings by other processes than those that tuned the shipped tables."""
H200_DECODES = {
    requests: f"{requests if requests > 1 else ''}q1s{{1k,4k,16k}}" for requests in (1, 32, 48, 128)
}


def picture(material: Material) -> str:
    """The picture, and what it shows in words."""
    header = material.shown[0].header
    small, large = (
        (f"{min(curve.gains):.1f}× to {max(curve.gains):.1f}×", curve.num_q_heads)
        for curve in material.curves
    )
    gains = f"{small[0]} as fast with {small[1]} heads and {large[0]} with {large[1]}"
    reach = [graphs_in_use(table)[1].partition(" (")[0] for table in material.shown]
    return (
        f"![Time of one layer over the requests in a decode step, by default and tuned: "
        f"{gains}](docs/gains.svg)\n\n"
        f"{header.backend} on an {gpu_of(material.shown[0])}, vLLM {header.software['vllm']}, "
        f"`max_model_len` {header.engine.max_model_len}: tuned, a layer's decode step\n"
        f"under CUDA graphs, with {format_size(SHOWN_KV_LEN)} tokens of KV in each request, is\n"
        f"{gains}. An engine uses a plan up to the context that it was\n"
        f"compared at: by the number of requests {reach[0]} tokens with {small[1]} heads and "
        f"{reach[1]} with {large[1]}."
    )


def shipped(material: Material) -> str:
    """Dense tables by GPU, release and backend: for which heads, and what of them is in use."""
    groups: dict[tuple[str, str, str], list[Table]] = {}
    for table in material.tables:
        header = table.header
        if header.engine.index_topk is None:
            release = f"{header.software['vllm']}{' +' if header.software_digests else ''}"
            groups.setdefault((gpu_of(table), release, header.backend), []).append(table)
    rows = [
        [*key, _heads(tables), _in_use(tables, "graph"), _in_use(tables, "eager")]
        for key, tables in sorted(groups.items())
    ]
    columns = ["GPU", "vLLM", "backend", "heads on a GPU", "decode graphs", "eager steps"]
    answered = counted(answered_by(material.tables), "[in the list](docs/coverage.md)")
    return f"{_rows(columns, rows)}\n\n{answered}"


def _heads(tables: Iterable[Table]) -> str:
    return ", ".join(map(str, sorted({table.header.model["num_q_heads"] for table in tables})))


def _in_use(tables: Iterable[Table], mode: str) -> str:
    """How many of the entries name a plan that an engine uses."""
    of_mode = [table for table in tables if table.header.engine.mode == mode]
    if not of_mode:
        return "–"
    in_use = graphs_in_use if mode == "graph" else eager_in_use
    used = sum(in_use(table)[0] for table in of_mode)
    return f"{used} of {sum(len(table.entries) for table in of_mode)}"


def hopper(material: Material) -> str:
    """How far TRITON_MLA with its tables is behind FLASH_ATTN_MLA without one."""
    rows = []
    for contest in material.contests:
        ratios = list(behind(contest, "TRITON_MLA", "FLASH_ATTN_MLA"))
        if ratios:
            ground = contest.ground
            told = [ground.gpu.removeprefix("NVIDIA "), str(ground.num_q_heads), str(len(ratios))]
            rows.append([*told, f"{statistics.geometric_mean(ratios):.2f}×", _span(ratios)])
    return _rows(["GPU", "heads", "shapes", "in the mean", "from, to"], rows)


def behind(contest: Contest, backend: str, other: str) -> Iterator[float]:
    """By shape, the time of ``backend`` with its table over that of ``other`` without one."""
    for point in contest.points:
        for mine in _timings(contest, point, backend):
            for theirs in _timings(contest, point, other):
                if mine.served_us is not None and theirs.default_us is not None:
                    yield mine.served_us / theirs.default_us


def _timings(contest: Contest, point: Point, backend: str) -> Iterator[Timing]:
    for contender, timing in zip(contest.contenders, point.timings, strict=True):
        if contender.backend == backend and timing is not None:
            yield timing


def decodes_h200(material: Material) -> str:
    """Decode steps of the H200's backends, by default → tuned."""
    rows = []
    for contest in material.contests:
        if contest.ground.gpu != "NVIDIA H200":
            continue
        for contender in sorted(contest.contenders, key=lambda each: each.backend):
            entries = {entry.shape: entry for entry in contender.table.file.entries}
            cells = [_default_to_tuned(entries[shape]) for shape in H200_DECODES.values()]
            gain = Summary.of(contender.table.file.entries).gain or math.nan
            heads = str(contest.ground.num_q_heads)
            release = contender.table.file.header.software["vllm"]
            rows.append([heads, contender.backend, release, *cells, f"{gain:.2f}×"])
    batches = [f"batch {requests}" for requests in H200_DECODES]
    return _rows(["heads", "backend", "vLLM", *batches, "gain"], rows)


def _default_to_tuned(entry: Entry) -> str:
    default = "fails" if entry.default_us is None else f"{entry.default_us:.0f}"
    return f"{default} → {entry.latency_us:.0f}"


def tables_h100(material: Material) -> str:
    """What each of the H100's tables holds."""
    return _tables(material, "H100")


def tables_h200(material: Material) -> str:
    """What each of the H200's tables holds."""
    return _tables(material, "H200")


def _tables(material: Material, gpu: str) -> str:
    """A row a table that names a plan."""
    tables = [each for each in material.tables if gpu_of(each).startswith(gpu)]
    rows = [
        _table_row(each)
        for each in sorted(tables, key=_order)
        if Summary.of(each.entries).num_plans
    ]
    columns = ["backend", "heads", "mode", "`max_model_len`", "entries", "plans", "in use", "up to"]
    return _rows([*columns, "mean", "largest"], rows)


def _order(table: Table) -> tuple[str, str, int, int]:
    header = table.header
    length = header.engine.max_model_len or 0
    return header.backend, header.engine.mode, header.model["num_q_heads"], length


def _table_row(table: Table) -> list[str]:
    header, found = table.header, Summary.of(table.entries)
    is_graph = header.engine.mode == "graph"
    in_use, up_to = graphs_in_use(table) if is_graph else eager_in_use(table)
    kv = "" if header.kv_cache_dtype == "auto" else f", {header.kv_cache_dtype}"
    most = max(entry.speedup.median for entry in table.entries if entry.speedup)
    return [
        header.backend + kv,
        str(header.model["num_q_heads"]),
        header.engine.mode,
        str(header.engine.max_model_len) if is_graph else "–",
        *map(str, (found.num_entries, found.num_plans, in_use)),
        up_to if in_use else "–",
        f"{found.gain or math.nan:.2f}×",
        f"{most:.2f}×",
    ]


def judgements(material: Material) -> str:
    """Shipped tables on recordings by other processes."""
    rows = []
    for name in HELD_OUT:
        recording = Recording.load(DATA / f"{name}.jsonl.gz")
        for found in material.found:
            header = found.file.header
            try:
                all_used = Judgement.of(judged(found.path, recording, unguarded=True))
            except InputError:  # the recording is of something else
                continue
            used = Judgement.of(judged(found.path, recording))
            told = [header.backend, str(header.model["num_q_heads"]), f"`{name}`"]
            rows.append([*told, *_judged(used), _slowest(all_used)])
    columns = ["backend", "heads", "recording", "points", "in use", "slowest", "if all were used"]
    return _rows(columns, rows)


def _judged(found: Judgement) -> list[str]:
    """Points, how many of them an entry answers, and the least speed-up."""
    sizes = f" and {len(found.unknown)} sizes without the plan" if found.unknown else ""
    return [f"{found.points}{sizes}", str(found.answered), _slowest(found)]


def _slowest(found: Judgement) -> str:
    return f"{found.worst:.3f}×" if found.points else "–"


def quickstart(_material: Material) -> str:
    """What the quickstart has found on a CPU."""
    entries = TableFile.load(DATA / "quickstart.yaml").entries
    rows = [
        [f"`{entry.shape}`", str(entry.plan), *_default_and_tuned_ms(entry), str(entry.speedup)]
        for entry in entries
        if entry.plan
    ]
    rows.append([f"the other {len(entries) - len(rows)}", "default", "", "", ""])
    return _rows(["shape", "plan", "default", "tuned", "speed-up (95 %)"], rows)


def _default_and_tuned_ms(entry: Entry) -> tuple[str, str]:
    assert entry.default_us is not None, "a plan is published over a default"
    return f"{entry.default_us / 1000:.1f} ms", f"{entry.latency_us / 1000:.1f} ms"


def _span(ratios: Sequence[float]) -> str:
    return f"{min(ratios):.2f}× to {max(ratios):.2f}×"


def _rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


BLOCKS: dict[str, Callable[[Material], str]] = {
    "picture": picture,
    "shipped": shipped,
    "hopper": hopper,
    "decodes-h200": decodes_h200,
    "tables-h100": tables_h100,
    "tables-h200": tables_h200,
    "judgements": judgements,
    "quickstart": quickstart,
}
"""What each block says, by its name."""
