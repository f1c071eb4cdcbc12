import pytest

from draw_architecture import (
    BEGIN,
    DOCUMENT,
    END,
    Architecture,
    boxes_of,
    draw,
    read_architecture,
    with_drawing,
)

CLI, TUNING, TABLE, FILES = ("cli",), ("tuning",), ("table",), ("files",)
SMALL = Architecture(
    (CLI, TUNING, TABLE, FILES),
    {
        CLI: frozenset({TUNING, FILES}),
        TUNING: frozenset({TABLE}),
        TABLE: frozenset({FILES}),
        FILES: frozenset(),
    },
)


def test_the_document_shows_the_imports_of_the_code():
    document = DOCUMENT.read_text(encoding="utf-8")
    drawn = with_drawing(document, draw(read_architecture()))
    assert drawn == document, "run python scripts/draw_architecture.py"


def test_an_import_that_others_imply_has_no_arrow():
    assert list(SMALL.arrows()) == [(CLI, TUNING), (TUNING, TABLE), (TABLE, FILES)]


def test_what_a_box_loads_is_what_it_reaches():
    assert SMALL.below(CLI) == {TUNING, TABLE, FILES}
    assert SMALL.below(FILES) == frozenset()


def test_single_files_of_a_layer_share_a_box():
    assert boxes_of(("measuring", "vllm.flags", "session")) == [
        ("measuring",),
        ("vllm.flags", "session"),
    ]


def test_the_text_around_the_drawing_stays():
    text = f"before\n{BEGIN}old\n{END}after\n"
    assert with_drawing(text, "new\n") == f"before\n{BEGIN}\nnew\n\n{END}after\n"
    with pytest.raises(SystemExit, match="has lost the marks"):
        with_drawing("no marks", "new\n")
