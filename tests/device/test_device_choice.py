import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mla_tune.device.choice import (
    check_device_name,
    check_device_names,
    resolved_device,
    resolved_devices,
)
from mla_tune.errors import InputError


@pytest.mark.parametrize("name", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_the_names_of_devices_pass(name):
    assert check_device_name(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpu", "'cuda'"),
        ("GPU", "'cuda'"),
        ("0", "'cuda:0'"),
        ("3", "'cuda:3'"),
        ("CUDA", ""),
        ("cdua", "'cuda'"),
        ("mps", ""),
        ("xyz", ""),
        ("cuda:", "'cuda'"),
        ("cuda:-1", "'cuda'"),
        ("cuda:٣", "'cuda'"),
        ("٣", ""),
        ("", ""),
    ],
)
def test_what_is_no_device_is_refused_with_what_is(name, hint):
    with pytest.raises(InputError) as caught:
        check_device_name(name)
    assert repr(name) in caught.value.what
    assert "cuda:N" in caught.value.valid
    assert hint in caught.value.remedy


@given(st.text(max_size=12))
def test_any_text_is_a_name_or_an_input_error(name):
    with contextlib.suppress(InputError):
        assert check_device_name(name) == name


@pytest.fixture
def gpus(monkeypatch):
    """So many GPUs, as far as torch can count."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_auto_is_a_gpu_where_there_is_one(gpus):
    gpus(0)
    assert resolved_device("auto") == "cpu"
    gpus(1)
    assert resolved_device("auto") == "cuda"


@pytest.mark.parametrize(("name", "count"), [("cuda", 0), ("cuda:0", 0), ("cuda:99", 2)])
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(gpus, name, count):
    gpus(count)
    with pytest.raises(InputError) as caught:
        resolved_device(name)
    assert name in caught.value.what
    assert caught.value.valid == ", ".join(["cpu", "cuda:0", "cuda:1"][: count + 1])


@pytest.mark.parametrize("names", ["0,1", "cuda:0,cuda:1", "0, cuda:1"])
def test_several_devices_are_listed_by_number_or_name(names):
    assert check_device_names(names) == names
    assert resolved_devices(names) == ("cuda:0", "cuda:1")


def test_all_devices_are_those_that_torch_counts(gpus):
    gpus(3)
    assert resolved_devices("all") == ("cuda:0", "cuda:1", "cuda:2")


@pytest.mark.parametrize(
    ("names", "problem"),
    [("", "''"), ("cpu", "'cpu'"), ("0,", "''"), ("0,0", "cuda:0 twice"), ("cuda:00,0", "twice"),
     ("0;1", "'0;1'"), ("ALL", "'ALL'"), ("auto", "'auto'"), ("-1", "'-1'"), ("٣", "'٣'")],
)  # fmt: skip
def test_what_names_no_gpus_is_refused_with_what_does(names, problem):
    with pytest.raises(InputError) as caught:
        check_device_names(names)
    assert problem in caught.value.what
    assert "0,1" in caught.value.valid


@given(st.text(max_size=12))
def test_any_text_names_devices_or_is_an_input_error(names):
    with contextlib.suppress(InputError):
        assert check_device_names(names) == names
        assert names == "all" or resolved_devices(names)
