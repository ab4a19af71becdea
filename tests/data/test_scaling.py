import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from genre_classifier.config.schema import SplitConfig, TableConfig
from genre_classifier.data import scaling
from genre_classifier.data.datamodule import GenreDataModule


def features(rows: int = 500) -> np.ndarray:
    rng = np.random.default_rng(0)
    scale, shift = [1, 1e-3, 1e4, 1, 1], [0, 5, 1e6, -3, 7]
    made = rng.normal(size=(rows, 5)) * np.array(scale) + np.array(shift)
    made[:, 4] = 7.0
    return made.astype(np.float32)


@pytest.mark.parametrize("block", [7, 64, 10_000])
def test_fitting_by_blocks_gives_the_float64_statistics(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genre_classifier.data.values.BLOCK_VALUES", 5 * block)
    x, rows = features(), np.arange(0, 500, 2)
    scaler = scaling.fit_scaler(x, rows)
    exact = x[rows].astype(np.float64)
    np.testing.assert_allclose(scaler.mean_, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scaler.var_, exact.var(axis=0), rtol=1e-7, atol=1e-18)
    assert scaler.scale_[4] == 1.0
    reference = StandardScaler().fit(exact)
    np.testing.assert_allclose(
        scaling.standardise(scaler, x, rows), reference.transform(exact).astype(np.float32), atol=2e-6
    )


def test_the_scaler_is_fitted_on_training_rows_only(music_csv: Path) -> None:
    config = TableConfig(
        path=str(music_csv), label="genre", group="artist", id="track", split=SplitConfig(seed=3)
    )
    module = GenreDataModule(config)
    module.setup()
    train = module.table.features[module.data_split.train].astype(np.float64)
    np.testing.assert_allclose(module.scaler.mean_, train.mean(axis=0), rtol=1e-12)
    everything = module.table.features.astype(np.float64).mean(axis=0)
    assert np.abs(module.scaler.mean_ - everything).max() > 1e-3
    np.testing.assert_allclose(module.side("train")[0].numpy().mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(module.side("train")[0].numpy().std(axis=0), 1, atol=1e-5)
    expected = (module.table.features[module.data_split.test].astype(np.float64) - train.mean(0)) / train.std(
        0
    )
    np.testing.assert_allclose(module.side("test")[0].numpy(), expected, atol=1e-5)


def test_a_saved_scaler_is_a_plain_scikit_learn_pickle(tmp_path: Path) -> None:
    x = features()
    scaler = scaling.fit_scaler(x, np.arange(500))
    scaling.save_scaler(scaler, tmp_path / "scaler.pkl")
    loaded = pickle.loads((tmp_path / "scaler.pkl").read_bytes())
    assert isinstance(loaded, StandardScaler)
    np.testing.assert_array_equal(loaded.transform(x), scaler.transform(x))
