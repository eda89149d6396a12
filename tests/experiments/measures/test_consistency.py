"""How far replies agree, and what that says, against known values."""

from math import log, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.experiments.measures.consistency import (
    MEASURES,
    answer_entropy,
    auroc,
    calibration_error,
    distinct_ratio,
    likelihood_semantic_entropy,
    reply_confidence,
    semantic_entropy,
    vote_margin,
    vote_share,
)

ANSWERS = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=8)


def test_answer_entropy_has_the_value_of_the_survey() -> None:
    # The example of arXiv 2407.14507: consistency of {4, 3, 3, 3, 4} is -0.971.
    assert answer_entropy(["4", "3", "3", "3", "4"]) == pytest.approx(0.971, abs=5e-4)


def test_unparsed_replies_have_no_answer_and_a_meaning_of_their_own() -> None:
    replies = ["1", "1", None, None]
    assert answer_entropy(replies) == 0
    assert semantic_entropy(replies) == pytest.approx(1.5)
    assert distinct_ratio(replies) == 3 / 4
    assert np.isnan(answer_entropy([None, None]))


def test_votes_are_shares_of_all_replies() -> None:
    replies = ["1", "1", "1", "2", None]
    assert vote_share(replies) == 3 / 5
    assert vote_margin(replies) == 2 / 5
    assert vote_share([None]) == 0


@given(ANSWERS)
def test_every_measure_is_bounded_and_does_not_depend_on_order(answers: list[str | None]) -> None:
    for measure in MEASURES.values():
        value = measure.of(answers)
        assert np.isnan(value) or -1e-9 <= value <= max(1, log2(len(answers))) + 1e-9
        assert measure.of(answers[::-1]) == pytest.approx(value, nan_ok=True)


def test_full_agreement_is_the_most_consistent_of_all() -> None:
    values = {name: (m.sign * m.of(["1"] * 4), m.sign * m.of(["1", "2", "3", "1"])) for name, m in MEASURES.items()}
    assert all(agreed > split for agreed, split in values.values())


def test_equal_likelihoods_weigh_replies_alike() -> None:
    assert likelihood_semantic_entropy(["1", "1", "2"], [[-1.0]] * 3) == pytest.approx(
        semantic_entropy(["1", "1", "2"])
    )


def test_unlikely_replies_weigh_less_whatever_their_length() -> None:
    sure, unsure = [log(0.9)] * 2, [log(0.1)] * 7
    assert likelihood_semantic_entropy(["1", "2"], [sure, unsure]) == pytest.approx(-0.9 * log2(0.9) - 0.1 * log2(0.1))
    assert reply_confidence([sure, unsure]) == pytest.approx(0.5)


def test_auroc_agrees_with_scikit_learn() -> None:
    # scikit-learn 1.9.1: roc_auc_score([1, 0, 1, 1, 0, 0, 1], [0.9, 0.4, 0.4, 0.8, 0.8, 0.1, 0.3])
    found = auroc([0.9, 0.4, 0.4, 0.8, 0.8, 0.1, 0.3], [1, 0, 1, 1, 0, 0, 1])
    assert found == pytest.approx(2 / 3)


def test_auroc_of_one_kind_is_unknown() -> None:
    assert np.isnan(auroc([0.1, 0.2], [1, 1]))


def test_the_calibration_error_weighs_each_bin_by_its_size() -> None:
    # Two at 0.95 of which one is right (gap 0.45), two at 0.55 of which both are (gap 0.45): 0.45 in all.
    assert calibration_error([0.95, 0.95, 0.55, 0.55], [1, 0, 1, 1]) == pytest.approx(0.45)
    # Within a bin, gaps cancel: 0.61 and 0.69 are one bin of mean 0.65 with half of it right.
    assert calibration_error([0.61, 0.69], [1, 0]) == pytest.approx(0.15)
    assert calibration_error([1.0, 0.0], [1, 0]) == 0
    assert np.isnan(calibration_error([], []))
