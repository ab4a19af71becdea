"""Connect to a Ray cluster, or start a local instance."""

from __future__ import annotations

import logging
import socket
from typing import Any

from genre_classifier.commands import advise_to_install
from genre_classifier.errors import GenreClassifierError, MissingExtraError

SECONDS_TO_ANSWER = 5.0  # a cluster's first sign of life


def connect_to_ray(address: str, asked: str, num_cpus: int | None = None) -> Any:
    """Connect this process to Ray and return the connection, which is a context manager.

    Parameters
    ----------
    address : str
        Of the cluster, ``auto`` for the one that this machine is part of, ``local`` for a new instance.
    asked : str
        The user's words for it. Messages begin with them.
    num_cpus : int, optional
        CPUs of a new instance.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    GenreClassifierError
        The cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        name = asked.partition(" ")[0]
        raise MissingExtraError(
            f"{name} needs Ray, which is not installed; {advise_to_install('ray')}"
        ) from error
    try:
        _refuse_silence(address)
        return ray.init(
            address=address,
            num_cpus=num_cpus,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # A cluster's own dashboard is not ours to start or refuse.
            include_dashboard=False if address == "local" else None,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise GenreClassifierError(f"{asked}: no Ray cluster answers there ({error})") from error


def _refuse_silence(address: str) -> None:
    """Raise OSError if nothing listens at HOST:PORT. Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()
