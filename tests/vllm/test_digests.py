import hashlib
import importlib.metadata
from pathlib import Path

import pytest

from mla_tune.registry import BACKENDS
from mla_tune.table import Table
from mla_tune.table.software import compared
from mla_tune.vllm import digests
from mla_tune.vllm.backend import VllmBackend
from mla_tune.vllm.digests import Binary, Package, Source, digests_of

TUNED = Path(__file__).parents[2] / "tuned_configs"
SHIPPED = TUNED / "TRITON_MLA-NVIDIA_H100_80GB_HBM3-heads_16-kv_auto-graph-vllm_0.33.0.yaml"

SOURCE = '''
"""A kernel."""
import torch
from vllm.old_place import helper

TILE: int = 16


class Impl:
    """Launches it."""

    scale = 1.5

    def forward(self, x, *, splits=4):
        """Run."""
        # the frozen count
        return f"{helper(x)!r:>{self.scale}}" if splits > 1 else x[..., :-1]

    async def other(self):
        return {**{}, "é": 1e-9}
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_package", lambda: tmp_path)
    return tmp_path


def digest(package: Path, text: str, *symbols: str) -> str | None:
    (package / "kernel.py").write_text(text, encoding="utf-8")
    return Source("kernel.py", symbols).digest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# the frozen count", "# of a captured graph"),
        ('"""Run."""', '"""Run it, with as many splits as are given."""'),
        ('        """Run."""\n', ""),
        ('"""Launches it."""', '"""\n    Launches it."""'),
        ('"""A kernel."""\n', ""),
        ("from vllm.old_place import helper", "from vllm.new_place import helper"),
        ("import torch\n", ""),
        ("x, *, splits=4", "x, *, splits = 4,"),
        ("if splits > 1", "if (splits > 1)"),
    ],
)
def test_what_does_not_run_does_not_count(package, old, new):
    assert old in SOURCE
    assert digest(package, SOURCE.replace(old, new)) == digest(package, SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("splits=4", "splits=8"),
        ("splits > 1", "splits >= 1"),
        ("scale = 1.5", "scale = 1.6"),
        ("TILE: int = 16", "TILE: int = 32"),
        (":-1]", ":]"),
        ("!r:", "!s:"),
        ("async def", "def"),
        ("1e-9", "'1e-9'"),
    ],
)
def test_what_runs_counts(package, old, new):
    assert old in SOURCE
    assert digest(package, SOURCE.replace(old, new)) != digest(package, SOURCE)


def test_only_the_symbols_that_are_named_count(package):
    named = ("TILE", "Impl.forward")
    whole = digest(package, SOURCE, *named)
    assert digest(package, SOURCE.replace("scale = 1.5", "scale = 2"), *named) == whole
    assert digest(package, SOURCE.replace("splits=4", "splits=8"), *named) != whole
    assert digest(package, SOURCE.replace("TILE: int = 16", "TILE = 16"), *named) != whole
    assert digest(package, SOURCE.replace("TILE", "WIDTH"), *named) not in (None, whole)
    assert digest(package, SOURCE, "gone", "Impl.gone", "forward") is None


def test_the_digest_is_one_of_the_text_and_not_of_a_version_of_python(package):
    assert digest(package, SOURCE) == "8666a1d0a038"


def test_what_is_no_python_to_this_interpreter_goes_by_its_bytes(package):
    expected = hashlib.sha256(b"def (").hexdigest()[:12]
    assert digest(package, "def (") == expected
    assert digest(package, "") is None


def test_what_is_not_installed_has_no_digest(package):
    parts = (Source("gone.py"), Binary("gone*.so"), Package("mla-tune-gone"))
    assert digests_of(parts) == {}
    assert package.exists()


def test_a_library_that_was_built_in_place_is_read(package):
    library = package / "_kernels_C.abi3.so"
    library.write_bytes(b"one")
    first = Binary("_kernels_C*.so").digest()
    assert first == hashlib.sha256(b"one").hexdigest()[:12]
    library.write_bytes(b"another")
    assert Binary("_kernels_C*.so").digest() == hashlib.sha256(b"another").hexdigest()[:12]


def test_a_library_of_a_wheel_is_taken_from_its_record(package, monkeypatch):
    library = package / "_kernels_C.abi3.so"
    library.write_bytes(b"one")
    info = package / "vllm-9.9.dist-info"
    info.mkdir()
    told = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    (info / "RECORD").write_text(f"_kernels_C.abi3.so,{told},3\nother.so,,\n")
    installed = importlib.metadata.PathDistribution(info)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: installed)
    digests._recorded_libraries.cache_clear()
    try:
        assert Binary("_kernels_C*.so").digest() == hashlib.sha256(b"").hexdigest()[:12]
        library.write_bytes(b"of another size")
        assert (
            Binary("_kernels_C*.so").digest()
            == (hashlib.sha256(b"of another size").hexdigest()[:12])
        )
    finally:
        digests._recorded_libraries.cache_clear()


def vllms() -> list[VllmBackend]:
    return [backend for backend in BACKENDS if isinstance(backend, VllmBackend)]


def test_a_name_stands_for_one_part_in_all_backends():
    parts = {}
    for backend in vllms():
        assert backend.decode_parts, backend.name
        for part in (*backend.decode_parts, *backend.prefill_parts):
            assert parts.setdefault(part.name, part) == part


def test_prefill_decides_in_eager_mode_alone():
    for backend in vllms():
        graph, eager = backend.decided_by("graph"), backend.decided_by("eager")
        assert eager[: len(graph)] == graph
        assert {"mla_attention.py"} == {"mla_attention.py"} & (set(eager) - set(graph))


@pytest.mark.vllm
def test_every_part_is_in_this_release():
    """So that a file or a function that moves is noticed here; see docs/adding-a-release.md."""
    beside = {"flashinfer-cubin", "tokenspeed-mla"}
    for backend in vllms():
        missing = set(backend.decided_by("eager")) - set(backend.digests()) - beside
        assert not missing, backend.name


@pytest.mark.vllm
def test_a_digest_from_the_record_is_that_of_the_file():
    digests._recorded_libraries.cache_clear()
    part = Binary("_flashmla_extension_C*.so")
    root = digests._package()
    assert root is not None
    (path,) = root.glob(part.pattern)
    assert path in digests._recorded_libraries()
    assert part.digest() == hashlib.sha256(path.read_bytes()).hexdigest()[:12]


@pytest.mark.vllm
def test_the_shipped_table_holds_where_its_kernel_is_the_same():
    """In 0.33 it is; 0.32 computed offsets in 32 bits, and the table does not hold there."""
    table = Table.load(SHIPPED)
    version = importlib.metadata.version("vllm")
    installed = {"vllm": version, "triton": table.header.software["triton"]}
    measured, found = compared(table, installed, BACKENDS["TRITON_MLA"].digests())
    changed = [name for name in measured if measured[name] != found[name]]
    assert changed == ([] if version.startswith("0.33") else ["triton_decode_attention.py"])
