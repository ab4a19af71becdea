"""Give each trial that runs at the same time on one machine a separate GPU."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: list[FileLock] = []  # held until the process ends


def take_gpu(sweep: Path) -> str | None:
    """Make one GPU visible to this process that no other trial of the sweep on this machine uses.

    Call it before anything uses a GPU. A GPU that the launcher has assigned (Ray, Slurm) is kept.

    Parameters
    ----------
    sweep : Path
        The sweep's folder.

    Returns
    -------
    str or None
        The GPU's number; None if there are fewer than two GPUs.
    """
    visible = _list_visible_gpus()
    if len(visible) < 2:
        return None
    device = lock_free_device(sweep, visible)
    os.environ[VISIBLE] = device
    log.info("GPU %s", device)
    return device


def lock_free_device(sweep: Path, devices: Sequence[str]) -> str:
    """Lock and return the first device that no living process has locked. If all are locked, share one."""
    folder = sweep / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    for device in devices:
        lock = FileLock(folder / f"{socket.gethostname()}-gpu-{device}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _held.append(lock)
        return device
    return devices[os.getpid() % len(devices)]


def _list_visible_gpus() -> list[str]:
    listed = os.environ.get(VISIBLE)
    if listed is not None:
        return [device.strip() for device in listed.split(",") if device.strip()]
    import torch

    # NVML counts them without initialising a GPU, so this process can still choose one.
    return [str(number) for number in range(torch.cuda.device_count())]
