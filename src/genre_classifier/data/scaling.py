"""Fit, apply and save the StandardScaler. `scaler_state` has it as plain numbers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler

from genre_classifier.data.values import Float32, Int64, divide_rows
from genre_classifier.files.atomic import replacing


def fit_scaler(features: Float32, rows: Int64) -> StandardScaler:
    """Fit on the given rows, a block at a time, so that a large table is not copied to float64.

    Parameters
    ----------
    features : np.ndarray [shape=(row, feature), dtype=float32]
    rows : np.ndarray [shape=(n,), dtype=int64]
        The training rows.
    """
    scaler = StandardScaler()
    for block in divide_rows(len(rows), features.shape[1]):
        scaler.partial_fit(features[rows[block]].astype(np.float64))
    return scaler


def standardise(scaler: StandardScaler, features: Float32, rows: Int64) -> Float32:
    """Return the given rows standardised.

    Returns
    -------
    np.ndarray [shape=(n, feature), dtype=float32]
        Rounded once, after the float64 arithmetic.
    """
    result = np.empty((len(rows), features.shape[1]), dtype=np.float32)
    for block in divide_rows(len(rows), features.shape[1]):
        result[block] = scaler.transform(features[rows[block]].astype(np.float64), copy=False)
    return result


def save_scaler(scaler: StandardScaler, path: Path) -> None:
    """Pickle a fitted scaler in one step."""
    with replacing(path) as temporary:
        temporary.write_bytes(pickle.dumps(scaler))
