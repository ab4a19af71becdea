"""Small tables in FMA's layout, written as pandas wrote the published ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from genre_classifier.features.sets import FMA_SERIES, FMA_STATISTICS

GENRES = ("Hip-Hop", "Folk", "Rock")
SPLITS = ("training", "training", "training", "validation", "test")


def feature_columns() -> pd.MultiIndex:
    """Return the columns of features.csv."""
    names = [
        (series, statistic, f"{number:02d}")
        for series, size in FMA_SERIES.items()
        for statistic in FMA_STATISTICS
        for number in range(1, size + 1)
    ]
    return pd.MultiIndex.from_tuples(names, names=("feature", "statistics", "number"))


def make_tracks(n_artists: int = 5, n_tracks: int = 4) -> pd.DataFrame:
    """Return tracks of which each artist's last has no top genre, with text as it comes in the published table."""
    rows, number = [], 2
    for genre in GENRES:
        for artist in range(n_artists):
            for track in range(n_tracks):
                artist_id = GENRES.index(genre) * 100 + artist
                rows.append(
                    {
                        "track_id": number,
                        ("album", "comments"): track,
                        ("album", "id"): artist_id * 10 + track % 2,
                        ("album", "information"): '<p>Two lines,\nand "quotes"</p>' if track == 0 else None,
                        ("artist", "id"): artist_id,
                        ("artist", "name"): "Ars Magica, Ñ",
                        ("set", "split"): SPLITS[artist % len(SPLITS)],
                        ("set", "subset"): ("small", "medium", "large", "large")[track],
                        ("track", "genre_top"): None if track == n_tracks - 1 else genre,
                        ("track", "title"): "Food",
                    }
                )
                number += 3
    frame = pd.DataFrame(rows).set_index("track_id")
    frame.columns = pd.MultiIndex.from_tuples(list(frame.columns))
    return frame


def write_fma(folder: Path, tracks: pd.DataFrame | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write features.csv and tracks.csv; return both."""
    tracks = make_tracks() if tracks is None else tracks
    rng = np.random.default_rng(0)
    centres = {genre: rng.normal(size=518) for genre in GENRES}
    values = [
        centres.get(genre, np.zeros(518)) + 0.5 * rng.normal(size=518)
        for genre in tracks["track", "genre_top"]
    ]
    features = pd.DataFrame(np.array(values, np.float32), index=tracks.index, columns=feature_columns())
    folder.mkdir(parents=True, exist_ok=True)
    features.to_csv(folder / "features.csv", float_format="%.10e")
    tracks.to_csv(folder / "tracks.csv")
    return features, tracks
