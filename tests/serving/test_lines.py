from mla_tune.errors import InputError
from mla_tune.serving.lines import in_a_line


def test_an_error_with_all_its_parts() -> None:
    error = InputError("no such thing", valid="another", remedy="try it")
    assert in_a_line(error) == "no such thing; valid: another; to do: try it"
