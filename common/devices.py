"""What a GPU can do by its data sheet (`devices.toml`), by name or written out by the user."""

from typing import Annotated

import msgspec

from common.architecture import known_dtype, sheet
from common.names import look_up

OWN = """; of your own, write a table in place of the name: { name = "mine", \
tflops = { bf16 = 312 }, memory_gb = 40, memory_gb_per_s = 1555, pcie_gb_per_s = 32 }"""
Positive = Annotated[float, msgspec.Meta(gt=0)]


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One GPU. GB = 1e9 bytes; a link's rate is of one direction; prices only tell the order."""

    name: str
    tflops: dict[str, Positive]  # dense, by fp16, bf16, fp8, fp32, tf32
    memory_gb: Positive
    memory_gb_per_s: Positive
    pcie_gb_per_s: Positive
    link_gb_per_s: Positive | None = None  # NVLink and the like; None: by PCIe
    power_w: Positive | None = None
    usd_per_hour: Positive | None = None
    vendor: str = ""
    form: str = ""
    pcie: str = ""
    link: str = ""
    year: int | None = None
    price_source: str = ""
    source: str = ""
    note: str = ""

    def flops(self, dtype: str) -> float:
        """Return the dense peak in FLOP/s; InputError where the sheet gives none for the dtype."""
        remedy = f"; {self.name} has no such peak: add it under `tflops`"
        short = "tf32" if dtype == "tf32" else known_dtype(dtype)
        return 1e12 * look_up(short, self.tflops, "dtype", remedy)


def find(name: str | Device) -> Device:
    """Return the device of that name (A100: 80 GB SXM, H100: SXM), or the user's own as it is.

    Raises:
        InputError: no sheet has that name; the nearest are told, and what to write instead.
    """
    if isinstance(name, Device):
        return name
    named = {
        also: row for row in sheet("devices")["device"] for also in (row["name"], *row["also"])
    }
    row = look_up(name, named, "device", OWN)
    return msgspec.convert({key: row[key] for key in row if key != "also"}, Device)
