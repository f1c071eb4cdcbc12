import pytest

from mla_tune.plan.plan import UNTUNED
from mla_tune.table import Table
from mla_tune.table.software import compared
from tabled_engine import DIGESTS, ENGINE, SOFTWARE, entry, header

EAGER = ENGINE | {"mode": "eager"}
FLASHMLA = {"_flashmla_C.so": "a", "_flashmla_extension_C.so": "b", "ops/flashmla.py": "c"}
FLASHMLA |= {"flashmla.py": "d"}


def table(**changes) -> Table:
    return Table(header(**changes), (entry("8q1s1k", UNTUNED),))


def changed(held: Table, installed, digests) -> list[str]:
    measured, found = compared(held, SOFTWARE | installed, digests)
    assert measured.keys() == found.keys()
    return [name for name in measured if measured[name] != found[name]]


def test_the_same_parts_hold_whatever_the_release_is_called():
    held = table(software_digests=DIGESTS)
    assert changed(held, {"vllm": "0.27.0"}, DIGESTS) == []
    assert changed(held, {"vllm": "0.27.0rc1.dev3+gabc"}, DIGESTS) == []
    assert changed(held, {"vllm": "0.27.0", "triton": "3.7.0"}, DIGESTS) == ["triton release"]


def test_another_part_refuses_it_in_its_own_release_too():
    held = table(software_digests=DIGESTS)
    other = DIGESTS | {"triton_decode_attention.py": "other"}
    assert changed(held, {}, other) == ["triton_decode_attention.py"]


def test_a_library_of_the_same_release_may_have_been_built_elsewhere():
    held = table(backend="FLASHMLA", software_digests=FLASHMLA)
    other = FLASHMLA | {"_flashmla_C.so": "built in an image"}
    assert changed(held, {"vllm": "0.26.0+cu130"}, other) == []
    assert changed(held, {"vllm": "0.26.1"}, other) == ["_flashmla_C.so"]
    assert changed(held, {"vllm": "0.26.1"}, FLASHMLA) == []
    assert changed(held, {}, other | {"flashmla.py": "patched"}) == ["flashmla.py"]


@pytest.mark.parametrize(
    ("known", "digests"),
    [
        (None, DIGESTS),
        (DIGESTS, {}),
        ({"triton_decode_attention.py": DIGESTS["triton_decode_attention.py"]}, DIGESTS),
        (DIGESTS | {"another.py": "x"}, DIGESTS),
    ],
)
def test_without_the_same_parts_the_minor_release_decides(known, digests):
    held = table(software_digests=known)
    assert changed(held, {"vllm": "0.26.3"}, digests) == []
    assert changed(held, {"vllm": "0.27.0"}, digests) == ["vLLM release"]


def test_parts_of_the_prefill_path_count_for_eager_tables_alone():
    everything = DIGESTS | {"mla_attention.py": "engine"}
    assert changed(table(software_digests=DIGESTS), {"vllm": "0.27.0"}, everything) == []
    held = table(engine=EAGER, software_digests=DIGESTS | {"mla_attention.py": "table"})
    assert changed(held, {"vllm": "0.27.0"}, everything) == ["mla_attention.py"]
