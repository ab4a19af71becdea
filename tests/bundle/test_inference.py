from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from genre_classifier import GenreClassifier, ModelWrapper
from genre_classifier.bundle.predictor import DEFAULT_GENRES
from genre_classifier.errors import FeatureError
from tests.example_models import FEATURES, GENRES, make_model, make_rows, make_scaler, reference_probabilities

ROWS = make_rows()
MODEL = make_model()
SCALER = make_scaler(ROWS)
WRAPPER = ModelWrapper(MODEL, SCALER, GENRES, feature_names=FEATURES)


def probabilities_of(answers: list[dict]) -> np.ndarray:
    return np.array([[answer["all_probabilities"][genre] for genre in GENRES] for answer in answers])


class Shifted(nn.Module):
    """A model of another class: its logits do not come from a plain chain of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = GenreClassifier()
        self.normal = nn.BatchNorm1d(8)
        self.forwards = 0

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        return self.normal(self.inner(features)) + 1.0


def test_answer_has_exactly_the_documented_keys_and_plain_values():
    answer = WRAPPER.predict(ROWS[0], return_probs=True, top_k=2)
    assert list(answer) == [
        "predicted_genre",
        "predicted_index",
        "confidence",
        "top_predictions",
        "all_probabilities",
    ]
    assert type(answer["predicted_genre"]) is str
    assert type(answer["predicted_index"]) is int
    assert type(answer["confidence"]) is float
    assert [list(top) for top in answer["top_predictions"]] == [["genre", "confidence"]] * 2
    assert all(type(top["confidence"]) is float for top in answer["top_predictions"])
    assert list(answer["all_probabilities"]) == GENRES
    assert all(type(value) is float for value in answer["all_probabilities"].values())
    assert "all_probabilities" not in WRAPPER.predict(ROWS[0])
    assert len(WRAPPER.predict(ROWS[0])["top_predictions"]) == 3


def test_answer_agrees_with_itself_and_with_float64():
    expected = reference_probabilities(MODEL, SCALER, ROWS)
    single = [WRAPPER.predict(row, return_probs=True, top_k=8) for row in ROWS]
    batch = WRAPPER.predict_batch(ROWS, return_probs=True, top_k=8)
    assert np.abs(probabilities_of(single) - expected).max() < 1e-6
    assert np.abs(probabilities_of(batch) - expected).max() < 1e-6
    for answer, row in zip(single + batch, np.concatenate([expected, expected]), strict=True):
        top = answer["top_predictions"]
        confidences = [entry["confidence"] for entry in top]
        assert answer["predicted_index"] == row.argmax()
        assert answer["predicted_genre"] == GENRES[answer["predicted_index"]] == top[0]["genre"]
        assert answer["confidence"] == confidences[0]
        assert confidences == sorted(confidences, reverse=True)
        assert {entry["genre"]: entry["confidence"] for entry in top} == answer["all_probabilities"]
        assert sum(confidences) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e5, 1e6])
def test_a_mean_far_above_the_spread_costs_no_precision(ratio):
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(300, 20)) + ratio
    scaler = make_scaler(rows)
    expected = reference_probabilities(MODEL, scaler, rows)
    wrapper = ModelWrapper(MODEL, scaler, GENRES)
    single = probabilities_of([wrapper.predict(row, return_probs=True) for row in rows])
    batch = probabilities_of(wrapper.predict_batch(rows, return_probs=True))
    assert np.abs(single - expected).max() < 1e-6
    assert np.abs(batch - expected).max() < 1e-6


@pytest.mark.parametrize(
    "scaler",
    [
        None,
        StandardScaler(with_mean=False).fit(ROWS),
        StandardScaler(with_std=False).fit(ROWS),
        MinMaxScaler().fit(ROWS),
    ],
    ids=["none", "without mean", "without std", "min-max"],
)
def test_other_scalers_are_applied_as_they_are(scaler):
    rows = ROWS if scaler is not None else (ROWS - ROWS.mean(0)) / ROWS.std(0)
    wrapper = ModelWrapper(MODEL, scaler, GENRES)
    standardised = rows if scaler is None else scaler.transform(rows)
    expected = reference_probabilities(MODEL, None, standardised)
    assert np.abs(probabilities_of(wrapper.predict_batch(rows, return_probs=True)) - expected).max() < 1e-6
    one = probabilities_of([wrapper.predict(rows[5], return_probs=True)])
    assert np.abs(one - expected[5]).max() < 1e-6


def test_a_model_of_another_class_is_run_as_it_is_and_without_dropout():
    model = Shifted().train()
    wrapper = ModelWrapper(model, SCALER, GENRES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    answers = [wrapper.predict(ROWS[0], return_probs=True) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert model.training
    assert model.normal.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    model.eval()
    with torch.no_grad():
        logits = model(torch.tensor(SCALER.transform(ROWS[:1]), dtype=torch.float32))
    expected = torch.softmax(logits, dim=1).numpy()
    assert np.abs(probabilities_of(answers[:1]) - expected).max() < 1e-6


def test_outputs_that_become_more_than_the_genre_names_are_refused():
    model = make_model()
    wrapper = ModelWrapper(model, SCALER)
    model.network.append(nn.Linear(8, 9))
    with pytest.raises(ValueError, match=r"the default genre names are 8, the model has 9 outputs"):
        wrapper.predict_batch(ROWS)


def test_a_batch_is_one_forward_pass():
    model = Shifted()
    wrapper = ModelWrapper(model, SCALER, GENRES)
    model.forwards = 0
    wrapper.predict_batch(ROWS)
    assert model.forwards == 1

    calls = []
    hooked = make_model()
    wrapper = ModelWrapper(hooked, SCALER, GENRES)
    hooked.register_forward_hook(lambda *_: calls.append(1))
    wrapper.predict_batch(ROWS)
    assert len(calls) == 1
    wrapper.predict(ROWS[0])
    assert len(calls) == 2


def change_in_place(model):
    with torch.no_grad():
        model.network[0].weight.mul_(-1.0)


def change_data(model):
    model.network[3].bias.data += 3.0


def assign_data(model):
    model.network[6].weight.data = -model.network[6].weight.data


def load_other_weights(model):
    model.load_state_dict(make_model(seed=9).state_dict())


def replace_parameter(model):
    model.network[8].bias = nn.Parameter(torch.linspace(-5, 5, 8))


def replace_layer(model):
    model.network[8] = nn.Linear(32, 8)


def append_layer(model):
    model.network.append(nn.Linear(8, 8))


def override_forward(model):
    model.forward = lambda features: features[:, :8]


def become_double(model):
    model.double()
    change_in_place(model)


def step_of_training(model):
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(torch.ones(4, 20)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "change",
    [
        change_in_place,
        change_data,
        assign_data,
        load_other_weights,
        replace_parameter,
        replace_layer,
        append_layer,
        override_forward,
        become_double,
        step_of_training,
    ],
)
def test_a_model_changed_after_wrapping_gives_its_new_answers(change):
    model = make_model()
    wrapper = ModelWrapper(model, SCALER, GENRES)
    before = wrapper.predict(ROWS[0], return_probs=True)
    change(model)
    after = wrapper.predict(ROWS[0], return_probs=True)
    assert after["all_probabilities"] != before["all_probabilities"]
    fresh = ModelWrapper(model, SCALER, GENRES).predict_batch(ROWS[:1], return_probs=True)[0]
    for genre in GENRES:
        assert after["all_probabilities"][genre] == pytest.approx(fresh["all_probabilities"][genre], abs=1e-6)


def test_a_scaler_fitted_anew_is_used_as_it_is_now():
    scaler = make_scaler(ROWS)
    wrapper = ModelWrapper(MODEL, scaler, GENRES)
    scaler.fit(ROWS * 2.0)
    expected = reference_probabilities(MODEL, scaler, ROWS[:1])
    assert np.abs(probabilities_of([wrapper.predict(ROWS[0], return_probs=True)]) - expected).max() < 1e-6


def test_genre_names_default_to_the_documented_eight():
    wrapper = ModelWrapper(MODEL)
    assert wrapper.genre_names == DEFAULT_GENRES
    assert list(DEFAULT_GENRES) == [
        "Rock",
        "Electronic",
        "Hip-Hop",
        "Classical",
        "Jazz",
        "Folk",
        "Pop",
        "Experimental",
    ]
    with pytest.raises(ValueError, match=r"default genre names are 8, the model has 10 outputs"):
        ModelWrapper(make_model(n_genres=10))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"genre_names": ["Rock", "Jazz"]}, r"genre_names are 2, the model has 8 outputs"),
        ({"genre_names": ["Rock"] * 8}, r"'Rock' repeated"),
        ({"genre_names": "Rock"}, r"expected a list of names"),
        ({"genre_names": [*GENRES[:7], 3]}, r"genre_names\[7\]=3"),
        ({"genre_names": GENRES[:1]}, r"at least two genres"),
        ({"scaler": make_scaler(make_rows(n_features=5))}, r"the model's first layer 20.*the scaler 5"),
        ({"scaler": StandardScaler()}, r"never fitted"),
        ({"scaler": "scaler.pkl"}, r"scaler is a str; expected a fitted StandardScaler"),
        ({"feature_names": ["a", "b"]}, r"feature_names 2"),
        ({"feature_names": ["a"] * 20}, r"stands more than once"),
        ({"feature_names": "a" * 20}, r"expected a list of strings"),
    ],
)
def test_what_does_not_fit_together_is_refused_when_wrapped(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModelWrapper(MODEL, **arguments)


def test_feature_names_that_contradict_the_scaler_are_refused():
    scaler = StandardScaler().fit(pd.DataFrame(ROWS, columns=list(FEATURES)))
    assert ModelWrapper(MODEL, scaler).feature_names == FEATURES
    with pytest.raises(ValueError, match=r"differ from those the scaler was fitted with: out of place"):
        ModelWrapper(MODEL, scaler, feature_names=FEATURES[::-1])


def test_a_model_whose_output_is_no_matrix_is_refused():
    class Pair(nn.Module):
        def forward(self, features):
            return features, features

    with pytest.raises(ValueError, match=r"the model returned tuple; expected logits"):
        ModelWrapper(Pair(), SCALER, GENRES)
    with pytest.raises(ValueError, match=r"does not take rows of 20 features"):
        ModelWrapper(nn.Sequential(nn.Tanh(), nn.Linear(5, 8)), SCALER, GENRES)


def test_a_model_that_does_not_say_its_width_refuses_a_wrong_row_all_the_same():
    model = nn.Sequential(nn.Tanh(), nn.Linear(5, 8))
    wrapper = ModelWrapper(model, None, GENRES)
    assert wrapper.n_features is None
    assert wrapper.predict([0.1] * 5) == wrapper.predict_batch([[0.1] * 5])[0]
    with pytest.raises(ValueError, match="the model does not take rows of 4 features"):
        wrapper.predict([0.1] * 4)
    with pytest.raises(ValueError, match="rows of different lengths, 4, 5"):
        wrapper.predict_batch([[0.1] * 4, [0.1] * 5])


@pytest.mark.parametrize(
    "features",
    [
        ROWS[0].tolist(),
        tuple(ROWS[0].tolist()),
        ROWS[0].astype(object),
        list(ROWS[0]),
        torch.tensor(ROWS[0]),
        pd.Series(ROWS[0]),
        pd.Series(ROWS[0][::-1], index=list(FEATURES[::-1])),
        dict(zip(FEATURES[::-1], ROWS[0][::-1].tolist(), strict=True)),
        dict(zip(FEATURES, ROWS[0], strict=True)),
        pd.DataFrame([ROWS[0][::-1]], columns=list(FEATURES[::-1])),
        pd.DataFrame([ROWS[0]]),
        [Fraction(value) for value in ROWS[0].tolist()],
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_way_to_give_a_row_gives_the_same_answer(features):
    assert WRAPPER.predict(features, return_probs=True) == WRAPPER.predict(ROWS[0], return_probs=True)


@pytest.mark.parametrize(
    "features",
    [
        ROWS.tolist(),
        tuple(ROWS),
        torch.tensor(ROWS),
        pd.DataFrame(ROWS[:, ::-1], columns=list(FEATURES[::-1])),
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS, columns=list(FEATURES)).astype(object),
        [dict(zip(FEATURES[::-1], row[::-1], strict=True)) for row in ROWS.tolist()],
        [*ROWS[:100].tolist(), *ROWS[100:]],
        ROWS.astype(object),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_way_to_give_a_batch_gives_the_same_answers(features):
    assert WRAPPER.predict_batch(features) == WRAPPER.predict_batch(ROWS)


def test_whole_numbers_of_any_width_are_numbers():
    row = list(range(20))
    for features in (row, np.arange(20, dtype=np.int8), np.arange(20, dtype=np.uint64), np.float16(row)):
        assert WRAPPER.predict(features) == WRAPPER.predict([float(value) for value in row])


def changed(position, value):
    row = ROWS[0].tolist()
    row[position] = value
    return row


@pytest.mark.parametrize(
    ("features", "message", "feature"),
    [
        (ROWS[0][:19], r"expected 20 features, found 19", None),
        ([*ROWS[0], 1.0], r"expected 20 features, found 21", None),
        ([], r"expected 20 features, found 0", None),
        (ROWS[:1], r"expected one row of shape \(20,\), found an array of shape \(1, 20\)", None),
        (np.float64(3.0), r"expected 20 numbers, found a float64", None),
        (np.zeros((2, 2, 5)), r"shape \(2, 2, 5\)", None),
        (3.0, r"expected 20 numbers, found a float 3.0", None),
        (None, r"expected 20 numbers, found None", None),
        ("0.1,0.2", r"expected 20 numbers, found the string '0.1,0.2'", None),
        (b"abc", r"expected 20 numbers, found a bytes", None),
        (changed(3, math.nan), r"feature 3 \('mfcc_4'\) is nan; expected a finite number", 'mfcc_4'),
        (changed(19, math.inf), r"feature 19 \('chroma_entropy'\) is inf", "chroma_entropy"),
        (changed(0, -math.inf), r"feature 0 \('mfcc_1'\) is -inf", "mfcc_1"),
        (changed(2, "3"), r"feature 2 \('mfcc_3'\) is the string '3'; expected a number", "mfcc_3"),
        (changed(2, True), r"feature 2 \('mfcc_3'\) is the boolean True; expected a number", "mfcc_3"),
        (changed(2, np.True_), r"feature 2 \('mfcc_3'\) is the boolean", "mfcc_3"),
        (changed(2, None), r"feature 2 \('mfcc_3'\) is None", "mfcc_3"),
        (changed(2, 1 + 2j), r"is a complex", "mfcc_3"),
        (changed(2, Decimal(1)), r"is a Decimal", "mfcc_3"),
        (changed(2, 10**400), r"beyond the range of float64", "mfcc_3"),
        (changed(2, [1.0]), r"is a list \[1.0\]", "mfcc_3"),
        (np.array(ROWS[0] > 0), r"array of dtype bool", None),
        (ROWS[0].astype(str), r"array of dtype <U", None),
        (ROWS[0].astype(complex), r"array of dtype complex128", None),
        (np.ma.masked_array(ROWS[0], ROWS[0] > 0), r"masked \(missing\) values", None),
        ([*changed(3, "x"), 1.0], r"expected 20 features, found 21", None),
        (np.array(None, dtype=object), r"expected 20 numbers, found None", None),
        (pd.DataFrame(ROWS[:2], columns=list(FEATURES)), r"expected a table of one row, found 2 rows", None),
        (pd.DataFrame([changed(3, math.nan)]), r"^features: feature 3 \('mfcc_4'\) is nan", "mfcc_4"),
        (pd.Series(ROWS[0], index=[*range(19), "mfcc_1"]), r"unknown feature 0, 1, 2", None),
        ({"mfcc_1": 1.0}, r"missing feature 'mfcc_2', .* expected exactly the 20 names", "mfcc_2"),
        (dict(zip(FEATURES, ROWS[0], strict=True)) | {"tempo": 1.0}, r"unknown feature 'tempo'", "tempo"),
        (dict(zip(FEATURES, changed(4, "x"), strict=True)), r"'mfcc_5'\) is the string 'x'", "mfcc_5"),
        (dict(zip(FEATURES, changed(4, math.nan), strict=True)), r"'mfcc_5'\) is nan", "mfcc_5"),
        (pd.Series([1.0, 2.0], index=["mfcc_1", "mfcc_1"]), r"'mfcc_1' stands more than once", None),
        (changed(7, 1e308), r"not a finite number; farthest .* \('mfcc_8'\) = 1e\+308", "mfcc_8"),
    ],
)  # fmt: skip
def test_features_that_cannot_be_used_are_refused(features, message, feature):
    with pytest.raises(ValueError, match=message) as refused:
        WRAPPER.predict(features)
    assert isinstance(refused.value, FeatureError)
    assert refused.value.feature == feature
    assert refused.value.row is None


@pytest.mark.parametrize(
    ("features", "message", "row"),
    [
        (ROWS[0], r"expected an array of shape \(rows, 20\), found shape \(20,\)", None),
        (ROWS[:, :19], r"expected 20 features, found 19", None),
        (np.zeros((3, 0)), r"expected 20 features, found 0", None),
        (ROWS[0].tolist(), r"row 0: expected 20 numbers, found a float", 0),
        ([ROWS[0].tolist(), ROWS[1].tolist()[:5]], r"row 1: expected 20 features, found 5", 1),
        ([ROWS[0].tolist(), changed(1, "a")], r"row 1: feature 1 \('mfcc_2'\) is the string 'a'", 1),
        ([ROWS[0].tolist(), changed(1, math.nan)], r"row 1: feature 1 \('mfcc_2'\) is nan", 1),
        ([ROWS[0].tolist(), changed(1, 10**400)], r"row 1: feature 1 .* beyond the range", 1),
        ([ROWS[0].tolist(), True], r"row 1: expected 20 numbers, found the boolean True", 1),
        ([ROWS[0].tolist(), {"mfcc_1": 1.0}], r"row 1: missing feature 'mfcc_2'", 1),
        (np.stack([ROWS[0], changed(9, math.inf)]), r"row 1: feature 9 \('mfcc_10'\) is inf", 1),
        (np.stack([ROWS[0], changed(9, 1e308)]), r"row 1: the network's answer is not a finite", 1),
        (pd.DataFrame([ROWS[0], changed(9, math.nan)], columns=list(FEATURES)), r"row 1: feature 9", 1),
        (pd.DataFrame([ROWS[0], changed(9, "b")], columns=list(FEATURES)), r"row 1: .* the string 'b'", 1),
        (pd.DataFrame(ROWS[:, :2], columns=["mfcc_1", "tempo"]), r"unknown feature 'tempo'", None),
        (pd.DataFrame(ROWS[:, :2], columns=["mfcc_1", "mfcc_1"]), r"'mfcc_1' stands more than once", None),
        ([[math.nan] * 20, ROWS[0]], r"row 0: feature 0 \('mfcc_1'\) is nan", 0),
        (np.array(None, dtype=object), r"expected a list of rows", None),
        ("abc", r"expected a list of rows", None),
        ({"mfcc_1": [1.0]}, r"expected a list of rows", None),
        (7, r"expected a list of rows", None),
    ],
)  # fmt: skip
def test_a_batch_that_cannot_be_used_is_refused_with_its_row(features, message, row):
    with pytest.raises(FeatureError, match=message) as refused:
        WRAPPER.predict_batch(features)
    assert refused.value.row == row


@pytest.mark.parametrize(
    "nothing",
    [[], (), np.empty((0, 20)), np.empty(0), pd.DataFrame(), pd.DataFrame(columns=list(FEATURES))],
)
def test_an_empty_batch_gives_no_answers(nothing):
    assert WRAPPER.predict_batch(nothing) == []


@pytest.mark.parametrize("top_k", [0, -1, 9, 2.0, "3", True, None])
def test_top_k_out_of_range_is_refused(top_k):
    with pytest.raises(ValueError, match=r"top_k=.*1 to 8"):
        WRAPPER.predict(ROWS[0], top_k=top_k)
    with pytest.raises(ValueError, match=r"top_k=.*1 to 8"):
        WRAPPER.predict_batch(ROWS, top_k=top_k)


def test_top_k_left_alone_works_for_two_genres_and_three_asked_for_is_refused():
    wrapper = ModelWrapper(make_model(n_genres=2), SCALER, ["Rock", "Jazz"])
    assert len(wrapper.predict(ROWS[0])["top_predictions"]) == 2
    assert len(wrapper.predict(ROWS[0], top_k=np.int64(1))["top_predictions"]) == 1
    with pytest.raises(ValueError, match=r"top_k=3: expected 1 to 2"):
        wrapper.predict(ROWS[0], top_k=3)


def test_named_features_need_a_model_that_knows_names():
    wrapper = ModelWrapper(MODEL, SCALER, GENRES)
    with pytest.raises(ValueError, match=r"does not know its features' names"):
        wrapper.predict(dict(zip(FEATURES, ROWS[0], strict=True)))
    with pytest.raises(ValueError, match=r"does not know its features' names"):
        wrapper.predict_batch(pd.DataFrame(ROWS, columns=list(FEATURES)))


def test_the_callers_features_are_left_alone():
    rows = ROWS.copy()
    WRAPPER.predict(rows[0])
    WRAPPER.predict_batch(rows)
    assert np.array_equal(rows, ROWS)


def test_of_equal_probabilities_the_lower_index_wins():
    model = make_model()
    with torch.no_grad():
        model.network[8].weight.zero_()
        model.network[8].bias.zero_()
    wrapper = ModelWrapper(model, SCALER, GENRES)
    for answer in (wrapper.predict(ROWS[0]), wrapper.predict_batch(ROWS[:1])[0]):
        assert answer["predicted_index"] == 0
        assert [top["genre"] for top in answer["top_predictions"]] == GENRES[:3]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(width=64), min_size=20, max_size=20))
def test_any_twenty_floats_give_a_distribution_or_a_named_error(row):
    try:
        answer = WRAPPER.predict(row, return_probs=True, top_k=8)
    except ValueError as error:
        assert "finite number" in str(error)  # noqa: PT017
        assert not all(abs(value) < 1e30 for value in row)
        return
    values = list(answer["all_probabilities"].values())
    assert all(0.0 <= value <= 1.0 for value in values)
    assert sum(values) == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3) | st.binary(max_size=3),
        lambda inner: st.lists(inner, max_size=22) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=60,
    )
)
def test_any_value_gives_an_answer_or_a_value_error(value):
    for predict in (WRAPPER.predict, WRAPPER.predict_batch):
        try:
            predict(value)
        except ValueError as error:
            assert str(error)  # noqa: PT017


@settings(max_examples=50, deadline=None)
@given(st.permutations(FEATURES))
def test_named_features_may_come_in_any_order(names):
    row = dict(zip(FEATURES, ROWS[0].tolist(), strict=True))
    assert WRAPPER.predict({name: row[name] for name in names}) == WRAPPER.predict(ROWS[0])
