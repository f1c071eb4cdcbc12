"""As much of pynvml as is asked of it, for one GPU whose figures a test sets."""

from dataclasses import dataclass, field
from types import SimpleNamespace

from mla_tune.device.driver import GpuDriver

# ruff: noqa: N802 - NVML's names


class NVMLError(Exception):
    def __init__(self, value, text):
        super().__init__(text)
        self.value = value


NOT_FOUND = NVMLError(6, "Not Found")
NOT_SUPPORTED = NVMLError(3, "Not Supported")


@dataclass
class FakeNvml:
    """One GPU.

    Attributes:
        clocks_mhz: the SM clock at each question; the last one stays.
        reasons, temperature_c: what it says of the clock.
        samples: (pid, time in microseconds, percent) of kernels that ran.
        refuses: errors by the name of what is asked.
        names: of the machine's GPUs, where they are asked for by number.
    """

    NVMLError = NVMLError
    NVML_ERROR_NOT_FOUND = 6
    NVML_SUCCESS = 0
    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    clocks_mhz: list[int] = field(default_factory=lambda: [1980])
    reasons: int = 0
    max_mhz: int = 1980
    temperature_c: int = 60
    samples: list[tuple[int, int, int]] = field(default_factory=list)
    refuses: dict[str, NVMLError] = field(default_factory=dict)
    names: tuple[str, ...] = ("NVIDIA H200",)

    @property
    def driver(self):
        return GpuDriver.by_uuid("GPU-1", self)

    def _answer(self, name, answer):
        if name in self.refuses:
            raise self.refuses[name]
        return answer

    def nvmlInit(self):
        self._answer("init", None)

    def nvmlDeviceGetCount(self):
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, handle):
        return self.names[handle]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        return self._answer("handle", uuid)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _handle):
        return self._answer("reasons", self.reasons)

    def nvmlDeviceGetClockInfo(self, _handle, _kind):
        return self.clocks_mhz.pop(0) if len(self.clocks_mhz) > 1 else self.clocks_mhz[0]

    def nvmlDeviceGetMaxClockInfo(self, _handle, _kind):
        return self.max_mhz

    def nvmlDeviceGetTemperature(self, _handle, _kind):
        return self.temperature_c

    def nvmlDeviceGetProcessUtilization(self, _handle, since_us):
        newer = [s for s in self.samples if s[1] > since_us]
        if not newer:
            raise self.refuses.get("processes", NOT_FOUND)
        found = [SimpleNamespace(pid=pid, timeStamp=us, smUtil=sm) for pid, us, sm in newer]
        unused = SimpleNamespace(pid=0, timeStamp=0, smUtil=0)
        return self._answer("processes", [*found, unused])
