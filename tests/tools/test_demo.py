"""The shipped demo table is what its generator makes, and says of itself what it is."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

soundfile = pytest.importorskip("soundfile")

from genre_classifier.features.sets import CORE20, SAMPLE_RATE  # noqa: E402
from genre_classifier.features.spectral.core20 import extract_core20  # noqa: E402
from tools.demo import make  # noqa: E402
from tools.demo.compose import SECONDS, compose, meet_artist  # noqa: E402
from tools.demo.genres import GENRES, Groove, between  # noqa: E402
from tools.demo.render import CEILING, render  # noqa: E402
from tools.demo.streams import Stream  # noqa: E402

FOLDER = Path(str(files("genre_classifier.demo")))
GENRE_ORDER = ["Rock", "Electronic", "Hip-Hop", "Classical", "Jazz", "Folk", "Pop", "Experimental"]
FEATURES = list(CORE20.features)
# Another machine's sines and FFTs differ in the last bits; a changed rule or definition differs far more.
TOLERANCE = 1e-3  # of the value, or of the feature's standard deviation over the table where that is more


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_parquet(FOLDER / "features.parquet")


def test_the_table_has_every_row_once_and_in_order(table: pd.DataFrame) -> None:
    assert list(table.columns) == ["id", "genre", "artist", *FEATURES]
    assert list(dict.fromkeys(table["genre"])) == GENRE_ORDER
    assert (table.groupby("genre").size() == 300).all()
    assert (table.groupby("genre")["artist"].nunique() == 20).all()
    assert (table.groupby("artist").size() == 15).all()
    assert (table.groupby("artist")["genre"].nunique() == 1).all()
    assert table["id"].is_unique
    assert (table["id"].str.rsplit("/", n=1).str[0] == table["artist"]).all()


def test_the_features_are_finite_float32_and_vary(table: pd.DataFrame) -> None:
    assert (table[FEATURES].dtypes == np.float32).all()
    assert np.isfinite(table[FEATURES].to_numpy()).all()
    assert (table[FEATURES].std() > 0).all()
    assert not table[FEATURES].duplicated().any()


def test_the_table_says_that_it_is_synthetic_and_how_it_was_made() -> None:
    raw = pq.read_schema(FOLDER / "features.parquet").metadata
    metadata = {key.decode(): value.decode() for key, value in raw.items()}
    assert metadata["synthetic"] == "true"
    assert "not recordings" in metadata["note"]
    assert (metadata["feature_set"], metadata["feature_set_version"]) == ("core20", "1")
    assert json.loads(metadata["genres"]) == GENRE_ORDER
    assert metadata["seed"] == str(make.SEED)
    assert make.SEED not in make.PILOT_SEEDS
    assert metadata["generator_version"] == str(make.GENERATOR_VERSION)
    assert (int(metadata["sample_rate"]), float(metadata["clip_seconds"])) == (SAMPLE_RATE, SECONDS)


def test_the_shipped_files_are_small() -> None:
    assert (FOLDER / "features.parquet").stat().st_size < 1_000_000
    assert sum(clip.stat().st_size for clip in (FOLDER / "clips").iterdir()) < 2_000_000


def test_rows_rendered_anew_are_those_of_the_table(table: pd.DataFrame) -> None:
    spread = table[FEATURES].std().to_numpy()
    rows = table.set_index("id")[FEATURES]
    for place, genre in enumerate(GENRE_ORDER):
        artist, number = 1 + (7 * place) % 20, 15 - place
        score = compose(make.SEED, genre, artist, number)
        expected = rows.loc[meet_artist(make.SEED, genre, artist).track_id(number)].to_numpy()
        error = np.abs(extract_core20(render(score)) - expected)
        assert (error <= TOLERANCE * np.maximum(np.abs(expected), spread)).all(), score.name


def test_a_track_does_not_depend_on_what_was_rendered_before() -> None:
    alone = render(compose(5, "Jazz", 2, 3))
    render(compose(5, "Rock", 1, 1))
    np.testing.assert_array_equal(render(compose(5, "Jazz", 2, 3)), alone)
    assert alone.dtype == np.float32
    assert alone.size == int(SECONDS * SAMPLE_RATE)
    assert not np.array_equal(render(compose(6, "Jazz", 2, 3)), alone)
    assert not np.array_equal(render(compose(5, "Jazz", 2, 4)), alone)


def test_the_number_of_jobs_and_an_interruption_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make.Recipe(seed=9, n_artists=1, n_tracks=1)
    two_jobs = make.make_table(recipe, 2, tmp_path / "two.jsonl")
    finished = (tmp_path / "two.jsonl").read_text(encoding="utf-8").splitlines()
    cut_off = tmp_path / "cut.jsonl"
    cut_off.write_text("\n".join(finished[:6]) + "\n" + finished[6][:20], encoding="utf-8")
    rendered = []
    measure = make.measure_artist
    monkeypatch.setattr(make, "measure_artist", lambda *key: rendered.append(key) or measure(*key))
    one_job = make.make_table(recipe, 1, cut_off)
    pd.testing.assert_frame_equal(one_job, two_jobs, rtol=0, atol=0)
    assert len(rendered) == 3  # five of the eight artists were kept


def test_an_unfinished_run_of_another_recipe_is_not_continued(tmp_path: Path) -> None:
    unfinished = tmp_path / "features.unfinished.jsonl"
    unfinished.write_text('{"recipe": "another"}\n["Rock", 1, [[0.0]]]\n', encoding="utf-8")
    assert make._read_unfinished(unfinished, make.Recipe(n_artists=1)) == {}


def test_levels_are_neither_silent_nor_clipped() -> None:
    for genre in GENRE_ORDER:
        signal = render(compose(77, genre, 4, 2))
        assert np.abs(signal).max() <= CEILING
        assert 10 ** (-36 / 20) < np.sqrt(np.mean(signal**2)) < 10 ** (-6 / 20)


def test_clips_are_rows_of_the_table(table: pd.DataFrame) -> None:
    clips = sorted((FOLDER / "clips").glob("*.ogg"))
    chosen = list(make.clip_tracks(make.SEED, make.N_ARTISTS))
    assert {clip.name for clip in clips} == {make.clip_name(*clip) for clip in chosen}
    assert len(clips) == 3 * len(GENRE_ORDER)
    ids = {row.replace("/", "-") for row in table["id"]}
    for clip in clips:
        signal, rate = soundfile.read(clip)
        assert clip.stem in ids
        assert rate == SAMPLE_RATE
        assert signal.ndim == 1
        assert signal.size / rate == pytest.approx(SECONDS, abs=0.05)
        assert 0.01 < np.abs(signal).max() < 1.2  # Vorbis overshoots where a loud master is bent


def test_a_clip_measures_like_its_row(table: pd.DataFrame) -> None:
    genre, artist, number = next(make.clip_tracks(make.SEED, make.N_ARTISTS))
    signal, rate = soundfile.read(FOLDER / "clips" / make.clip_name(genre, artist, number))
    row = table.set_index("id")[FEATURES].loc[meet_artist(make.SEED, genre, artist).track_id(number)]
    error = np.abs(extract_core20(signal, rate) - row.to_numpy()) / table[FEATURES].std().to_numpy()
    assert np.median(error) < 0.1  # Vorbis loses a little, in the highest frequencies most


def test_every_rule_can_be_played() -> None:
    for genre in GENRES.values():
        assert set(genre.neighbours) <= set(GENRES) - {genre.name}
        assert 0.0 <= genre.crossover <= 1.0
        assert {groove.beats for groove in genre.rhythm.grooves} == {3, 4}
        if genre.sibling is not None:
            assert GENRES[genre.sibling].sibling == genre.name
            assert 0.0 <= genre.lean[0] <= genre.lean[1] < 0.5  # still nearer to its own genre
        for groove in genre.rhythm.grooves:
            assert isinstance(groove, Groove)
            assert len({len(strokes) for strokes in groove.strokes.values()}) == 1


def test_between_moves_ranges_and_mixes_options_in_the_ratio_of_the_lean() -> None:
    rock, pop = GENRES["Rock"], GENRES["Pop"]
    assert between(rock, pop, 0.0) == rock
    style = between(rock, pop, 0.25)
    assert (style.name, style.neighbours) == ("Rock", rock.neighbours)
    for facet, name in (("rhythm", "tempo"), ("production", "loudness"), ("harmony", "detune")):
        near, far = getattr(getattr(rock, facet), name), getattr(getattr(pop, facet), name)
        expected = np.asarray(near) + 0.25 * (np.asarray(far) - np.asarray(near))
        np.testing.assert_allclose(getattr(getattr(style, facet), name), expected)
    assert style.rhythm.drumless == pytest.approx(0.75 * rock.rhythm.drumless + 0.25 * pop.rhythm.drumless)
    assert set(style.comp.voices) == {*rock.comp.voices, *pop.comp.voices}
    from_pop = np.mean([voice not in rock.comp.voices for voice in style.comp.voices])
    assert from_pop == pytest.approx(0.25, abs=0.05)


def test_every_draw_of_artists_fills_the_continuum() -> None:
    for seed in range(20):
        for name in ("Rock", "Pop"):
            low, high = GENRES[name].lean
            places = sorted(meet_artist(seed, name, number).lean for number in range(1, 21))
            assert low <= places[0]
            assert places[-1] < high
            edges = [low, *places, high]
            assert max(np.diff(edges)) < 0.12 * (high - low)  # independent draws leave larger gaps
    assert meet_artist(3, "Jazz", 1).lean == 0.0


def test_classical_has_hardly_drums_and_electronic_keeps_time() -> None:
    tracks = [(artist, number) for artist in range(1, 11) for number in (1, 2)]
    classical = [compose(3, "Classical", *track) for track in tracks]
    electronic = [compose(3, "Electronic", *track) for track in tracks]
    assert np.mean([not score.hits for score in classical]) > 0.7
    assert np.mean([bool(score.hits) for score in electronic]) > 0.7
    assert np.std([score.tempo for score in electronic]) < np.std([score.tempo for score in classical])


def test_a_stream_is_uniform_and_depends_on_its_whole_key() -> None:
    numbers = Stream(1, "a").array(20_000)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    assert numbers.mean() == pytest.approx(0.5, abs=0.01)
    assert numbers.var() == pytest.approx(1 / 12, abs=0.005)
    assert Stream(1, "a").uniform(0, 1) != Stream(1, "b").uniform(0, 1)
    assert Stream(1, 23).uniform(0, 1) != Stream(12, 3).uniform(0, 1)
    counts = np.bincount([Stream(2, i).integer(0, 3) for i in range(2000)], minlength=4)
    assert counts.min() > 400


def test_the_command_makes_a_small_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make.main(["--seed", "4", "--artists", "1", "--tracks", "1", "--output", str(tmp_path), "--no-clips"])
    assert [path.name for path in tmp_path.iterdir()] == ["features.parquet"]
    assert len(pd.read_parquet(tmp_path / "features.parquet")) == 8
    assert "8 rows" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        make.main(["--jobs", "0"])
    assert "--jobs=0: expected at least 1" in capsys.readouterr().err
