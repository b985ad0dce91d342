"""Data sheets of devices: every row, found under the names that people and drivers use."""

import csv
from pathlib import Path

import msgspec
import pytest

from common.devices import Device, find
from common.errors import InputError

ROWS = list(csv.DictReader((Path(__file__).parent / "devices.csv").read_text().splitlines()))
OWN = {
    "name": "mine",
    "tflops": {"bf16": 312},
    "memory_gb": 40,
    "memory_gb_per_s": 1555,
    "pcie_gb_per_s": 32,
}


def number(text: str) -> float | None:
    return float(text) if text else None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_sheet_says_what_its_row_says(row: dict[str, str]) -> None:
    device = find(row["name"])
    half = number(row["tflops_fp16_bf16_dense"])
    tflops = {
        "fp16": half,
        "bf16": half if row["bf16"] == "yes" else None,
        "fp8": number(row["tflops_fp8_dense"]),
        "fp32": number(row["tflops_fp32"]),
        "tf32": number(row["tflops_tf32_dense"]),
    }
    assert device.tflops == {dtype: peak for dtype, peak in tflops.items() if peak}
    columns = {
        "memory_gb": "memory_gb",
        "memory_gb_per_s": "memory_gb_per_s",
        "pcie_gb_per_s": "pcie_gb_per_s_per_direction",
        "link_gb_per_s": "scale_up_gb_per_s_per_direction",
        "power_w": "tdp_w",
        "usd_per_hour": "price_usd_per_gpu_hour",
        "year": "year",
    }
    assert {ours: getattr(device, ours) for ours in columns} == {
        ours: number(row[theirs]) for ours, theirs in columns.items()
    }
    assert (device.price_source != "") == (device.usd_per_hour is not None)
    assert (device.source, device.note) == (row["checked_against"], row["note"])


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("h100", "H100-80GB-SXM"),
        ("H100-SXM", "H100-80GB-SXM"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB-SXM"),
        ("h100_pcie", "H100-80GB-PCIe"),
        ("a100", "A100-80GB-SXM"),
        ("A100-40GB", "A100-40GB-SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB-SXM"),
        ("RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("Tesla T4", "T4"),
        ("v100", "V100-16GB-SXM2"),
        ("P100", "P100-16GB-PCIe"),
        ("mi300x", "MI300X"),
    ],
)
def test_names_are_matched_as_people_and_drivers_write_them(written: str, name: str) -> None:
    assert find(written).name == name


def test_an_unknown_name_tells_the_nearest_and_how_to_write_a_sheet() -> None:
    with pytest.raises(InputError, match="H100") as error:
        find("H101-SXM")
    assert "tflops" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_device_of_the_users_own_is_used_as_it_is() -> None:
    own = msgspec.convert(OWN, str | Device)
    assert find(own).flops("bfloat16") == 312e12
    assert own == msgspec.convert(OWN, Device)


def test_a_peak_that_the_sheet_does_not_give_is_refused() -> None:
    assert find("A100").flops("float16") == 312e12
    assert find("A100").flops("tf32") == 156e12
    with pytest.raises(InputError, match=r"bf16.*T4"):
        find("T4").flops("bf16")


@pytest.mark.parametrize("wrong", [{"memory_gb": 0}, {"tflops": {"bf16": -1}}, {"memory": 40}])
def test_a_wrong_sheet_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(OWN | wrong, Device)
