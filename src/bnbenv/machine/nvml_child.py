"""Ask NVML through nvidia-ml-py and print one JSON object; run as a script, since NVML may hang or crash.

Started as ``python -I nvml_child.py DIRECTORY LIBRARY``: the place of nvidia-ml-py's module, and NVML's
library where it was found. Nothing of bnbenv is imported.
Exit status 0 also for errors that NVML reports; anything else means a crash.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from typing import Any


def _try(answer: dict[str, Any], key: str, function: Any, *arguments: Any) -> Any:
    """Call one NVML function; keep its value under `key`, or the number of its error under ``errors``."""
    import pynvml

    try:
        value = function(*arguments)
    except pynvml.NVMLError as error:
        answer.setdefault("errors", {})[key] = getattr(error, "value", None)
        return None
    answer[key] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return value


def _device(nvml: Any, index: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"index": index}
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        return {"index": index, "error": getattr(error, "value", None), "message": str(error)}
    _try(answer, "name", nvml.nvmlDeviceGetName, handle)
    _try(answer, "uuid", nvml.nvmlDeviceGetUUID, handle)
    _try(answer, "compute_capability", nvml.nvmlDeviceGetCudaComputeCapability, handle)
    _try(answer, "memory", lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total))
    _try(answer, "pci_device_id", lambda: int(nvml.nvmlDeviceGetPciInfo(handle).pciDeviceId))
    _try(answer, "bus_id", lambda: nvml.nvmlDeviceGetPciInfo(handle).busId)
    mode = _try(answer, "mig_mode", nvml.nvmlDeviceGetMigMode, handle)
    if mode is not None and mode[0] == 1:
        answer["mig_devices"] = _mig_devices(nvml, handle)
    return answer


def _mig_devices(nvml: Any, handle: Any) -> list[dict[str, Any]]:
    found = []
    try:
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except nvml.NVMLError:
        return []
    for index in range(count):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError:
            continue  # an unused place
        answer: dict[str, Any] = {}
        _try(answer, "name", nvml.nvmlDeviceGetName, part)
        _try(answer, "uuid", nvml.nvmlDeviceGetUUID, part)
        _try(answer, "memory", lambda part=part: int(nvml.nvmlDeviceGetMemoryInfo(part).total))
        found.append(answer)
    return found


def _answer() -> dict[str, Any]:
    import pynvml as nvml

    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return {"error": getattr(error, "value", None), "message": str(error)}
    answer: dict[str, Any] = {"devices": []}
    try:
        _try(answer, "driver", nvml.nvmlSystemGetDriverVersion)
        _try(answer, "cuda", nvml.nvmlSystemGetCudaDriverVersion_v2)
        count = nvml.nvmlDeviceGetCount()
        answer["devices"] = [_device(nvml, index) for index in range(count)]
    except nvml.NVMLError as error:
        answer["error"] = getattr(error, "value", None)
        answer["message"] = str(error)
    return answer


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    # nvidia-ml-py asks for the library by its bare name: loaded once by its path, it is found by that name
    # (WSL and some distributions keep it where the loader does not look).
    with contextlib.suppress(OSError):
        ctypes.CDLL(sys.argv[2])
    sys.stdout.write(json.dumps(_answer()))
    sys.stdout.flush()
