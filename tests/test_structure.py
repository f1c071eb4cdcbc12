"""How long modules and functions may be, and where tests stand."""

import ast
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mla_tune"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

LONGEST_MODULE = 350
LONGEST_FUNCTION = 45
MEDIAN_MODULE = 150

# Tests of something else than one module or script, by their place in tests/.
NOT_OF_ONE_MODULE = {
    "test_docs.py": "the documents: links, paths and commands",
    "test_glossary.py": "docs/glossary.md",
    "test_structure.py": "this file",
    "test_site.py": "the documents as a site",
    "test_wheel.py": "what the wheel holds",
    "test_fuzzing.py": "reads mutated inputs of all kinds, with tests/fuzzing.py",
    "test_fuzz_kinds.py": "the kinds of input in tests/fuzz_kinds.py",
    "cli/test_interrupted_runs.py": "the whole command, interrupted",
    "cli/test_newcomer.py": "the README's way from the quickstart to an explanation",
    "cli/test_recorded_runs.py": "the whole command on recordings",
    "test_examples.py": "examples/",
    "cli/test_refusals.py": "the whole command with input that it refuses",
    "report/test_page_in_browser.py": "the whole page of the shipped tables, in Chromium",
    "plan/test_made_up_knob.py": "a knob that no module knows of",
    "scripts/test_nightly.py": "scripts/nightly/: shell, units and manifests",
    "table/test_table_format.py": "docs/table-format.md",
    "tuning/test_nights.py": "retunes over many nights, by the whole tuner",
    "tuning/test_recorded_tables.py": "a whole run on a recording, compared with an earlier one",
    "vllm/test_vllm_cache_dtypes.py": "the KV dtypes of the shapes file, compared with vLLM's own",
    "vllm/backends/test_made_up_backend.py": "a backend that no module knows of",
    "vllm/test_serve_to_the_exec.py": "the whole `mla-tune serve`, before a stand-in for vLLM",
    "vllm/test_engine_captures.py": "shapes of an engine, compared with what vLLM captures",
    "vllm/compat/test_pins.py": "the releases pinned in several files",
    "vllm/plugin/test_bench_step.py": "scripts/bench_step.py, which needs vLLM",
    "vllm/plugin/test_context_parallel.py": "vLLM's own builder as one of several ranks",
    "vllm/plugin/test_gpu_plugin.py": "the whole plugin on a GPU",
    "vllm/plugin/test_register.py": "`register`, in processes of its own",
    "vllm/plugin/test_vllm_weights.py": "quantized weights in the layers of vLLM itself",
    "vllm/session/test_launch_contract.py": "launches of TRITON_MLA through the real session",
    "vllm/session/test_vllm_contract.py": "the whole session on each release",
    "vllm/session/test_vllm_gpu.py": "the whole session on a GPU",
}


def inside(path):
    return str(path.relative_to(ROOT))


def lines_of(path):
    return path.read_text(encoding="utf-8").count("\n")


def functions_of(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_no_module_is_too_long():
    long = {inside(path): n for path in MODULES if (n := lines_of(path)) > LONGEST_MODULE}
    assert long == {}, f"over {LONGEST_MODULE} lines: such a module holds two things"


def test_half_of_the_modules_are_short():
    lengths = [n for path in MODULES if (n := lines_of(path))]
    assert median(lengths) < MEDIAN_MODULE


def test_no_function_is_too_long():
    """Counted from ``def``, without decorators, which are a command's options."""
    long = {
        f"{inside(path)}:{node.lineno} {node.name}": n
        for path in MODULES
        for node in functions_of(path)
        if (n := node.end_lineno - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}, f"over {LONGEST_FUNCTION} lines, signature and docstring included"


def mirrored(test):
    """The modules that ``test`` may be named after.

    ``test_lookup.py`` and ``test_lookup_nearest.py`` are both of ``lookup.py``; since two tests
    must not share a name, a package's may stand before it: ``test_journal_file.py``.
    """
    place = test.relative_to(ROOT / "tests").parent
    folder = ROOT / "scripts" if place == Path("scripts") else PACKAGE / place
    name = test.stem.removeprefix("test_")
    names = {name, *(name.removeprefix(f"{part}_") for part in place.parts)}
    return [
        path
        for path in folder.iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists())
        and any(f"{each}_".startswith(f"{path.stem.strip('_')}_") for each in names)
    ]


@pytest.mark.parametrize("test", TESTS, ids=inside)
def test_a_test_stands_where_its_module_does(test):
    if str(test.relative_to(ROOT / "tests")) in NOT_OF_ONE_MODULE:
        return
    assert mirrored(test), (
        f"{inside(test)} is named after no module of src/mla_tune at the same place; move or "
        "rename it, or list it in NOT_OF_ONE_MODULE with the reason"
    )


def test_the_listed_tests_exist():
    listed = {name for name in NOT_OF_ONE_MODULE if not (ROOT / "tests" / name).exists()}
    assert listed == set()


def test_no_two_tests_share_a_name():
    """pytest imports tests by their base name."""
    names = [test.name for test in TESTS]
    assert {name for name in names if names.count(name) > 1} == set()
