"""gtzan57 and fma518 say what librosa's functions say when each is called by itself, and are never NaN."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable

import numpy as np
import pytest

from genre_classifier.errors import DataError, GenreClassifierError, MissingExtraError
from genre_classifier.features.sets import FMA518, GTZAN57, FeatureSet
from genre_classifier.features.spectral.fma518 import extract_fma518
from genre_classifier.features.spectral.gtzan57 import extract_gtzan57
from genre_classifier.features.spectral.spectra import load_librosa
from tests.features.reference import DEGENERATE, MUSICAL, librosa_fma518, librosa_gtzan57, signal

SETS = {
    "gtzan57": (GTZAN57, extract_gtzan57, librosa_gtzan57),
    "fma518": (FMA518, extract_fma518, librosa_fma518),
}
Known = tuple[FeatureSet, Callable[..., np.ndarray], Callable[[np.ndarray], np.ndarray]]


@pytest.fixture(params=SETS)
def known(request: pytest.FixtureRequest) -> Known:
    return SETS[request.param]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [*MUSICAL, *DEGENERATE])
def test_every_feature_is_what_librosa_says(name: str, known: Known) -> None:
    pytest.importorskip("librosa", reason="needs the extra audio")
    feature_set, extract, reference = known
    y = signal(name)
    features = extract(y)
    assert features.dtype == np.float32
    assert features.shape == (len(feature_set.features),)
    assert np.isfinite(features).all()
    expected = reference(y)
    # Means of a signed signal, harmonic or percussive, cancel: what is left is of the order of its rounding.
    cancelling = np.array([n.startswith(("harmony", "perceptr")) for n in feature_set.features])
    allowed = np.where(cancelling, 1e-5 * np.abs(y).max(), 1e-9)
    allowed += (2e-5 if name in MUSICAL else 2e-4) * np.abs(expected)
    assert (np.abs(features - expected) <= allowed).all()


def test_a_constant_series_has_the_moments_that_fma_writes() -> None:
    pytest.importorskip("librosa", reason="needs the extra audio")
    features = dict(zip(FMA518.features, extract_fma518(np.zeros(22_050)), strict=True))
    assert features["zcr_std_01"] == 0.0
    assert features["zcr_skew_01"] == 0.0
    assert features["zcr_kurtosis_01"] == -3.0


def test_the_columns_of_fma_are_sorted_by_series_statistic_and_number() -> None:
    parts = [name.rsplit("_", 2) for name in FMA518.features]
    assert parts == sorted(parts)
    assert FMA518.features[0] == "chroma_cens_kurtosis_01"
    assert FMA518.features[-1] == "zcr_std_01"


def test_bad_signals_are_refused(known: Known) -> None:
    pytest.importorskip("librosa", reason="needs the extra audio")
    with pytest.raises(DataError, match="1 samples that are not finite"):
        known[1](np.array([0.0, np.nan]))


def test_without_librosa_the_install_line_is_named(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_librosa(name: str, *rest: object) -> object:
        if name.split(".")[0] == "librosa":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_librosa)
    with pytest.raises(MissingExtraError, match=r"not installed; run in .*-e '\.\[audio\]'"):
        known[1](np.zeros(10))


def test_a_numba_without_a_folder_to_compile_into_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "librosa.feature":
                raise RuntimeError(
                    "cannot cache function 'localmax': no locator available for file 'librosa/util.py'"
                )

    for name in [name for name in sys.modules if name.startswith("librosa.feature")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(GenreClassifierError, match=r"no locator available.*NUMBA_CACHE_DIR"):
        load_librosa()
