import pytest

from mla_tune.table.device_names import device_kind


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("AMD Instinct MI350X VF", "AMD Instinct MI350X"),
        ("NVIDIA  H200 ", "NVIDIA H200"),
    ],
)
def test_names_of_one_device(one, other):
    assert device_kind(one) == device_kind(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H100 80GB HBM3"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H100 80GB HBM3 MIG 2g.20gb"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"),
        ("NVIDIA GB200", "NVIDIA B200"),
        ("GRID A100-40C", "NVIDIA A100-SXM4-40GB"),
        ("AMD Instinct MI350X VF", "AMD Instinct MI355X VF"),
        ("AMD Instinct VF X", "AMD Instinct X"),
        ("VF", ""),
    ],
)
def test_names_of_two_devices(one, other):
    assert device_kind(one) != device_kind(other)
