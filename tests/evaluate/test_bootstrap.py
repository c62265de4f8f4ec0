"""Bootstrap intervals: where they are known, and that pairing is used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.evaluate.bootstrap import mean_with_interval, paired_difference


def test_the_interval_of_many_values_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(50, 10, 4000)
    told = mean_with_interval(values)
    half = 1.96 * values.std() / np.sqrt(4000)
    assert told["mean"] == pytest.approx(values.mean()) and told["n"] == 4000
    assert told["interval"] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.02)


def test_the_interval_of_two_values_by_hand() -> None:
    # Two draws from 0 and 100 have the mean 0 in a quarter of the cases, 100 in another: both ends are reached.
    assert mean_with_interval([0, 100]) == {"mean": 50.0, "n": 2, "interval": [0.0, 100.0]}


def test_too_few_values_have_no_interval() -> None:
    assert mean_with_interval([]) == {"mean": None, "n": 0, "interval": None}
    assert mean_with_interval([7]) == {"mean": 7.0, "n": 1, "interval": None}
    assert paired_difference([7], [5]) == {"difference": 2.0, "n": 1, "interval": None, "p": None}
    assert paired_difference([], [])["difference"] is None


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(0, 100), min_size=2, max_size=30))
def test_the_interval_holds_the_mean_and_is_the_same_each_time(values: list[int]) -> None:
    told = mean_with_interval(values)
    low, high = told["interval"]
    assert min(values) <= low <= told["mean"] + 1e-9 and told["mean"] - 1e-9 <= high <= max(values)
    assert told == mean_with_interval(values) == json.loads(json.dumps(told))


def test_pairing_finds_a_small_difference_that_lies_under_a_large_spread() -> None:
    rng = np.random.default_rng(1)
    hard = rng.uniform(0, 90, 100)
    first, second = hard + rng.uniform(1, 3, 100), hard
    told = paired_difference(first, second)
    assert told["difference"] == pytest.approx((first - second).mean()) and told["p"] < 0.001
    assert 1 < told["interval"][0] < told["interval"][1] < 3
    apart = [mean_with_interval(values)["interval"] for values in (first, second)]
    assert apart[0][0] < apart[1][1]  # the intervals of each alone overlap
    assert paired_difference(second, first)["difference"] == pytest.approx(-told["difference"])


def test_no_difference_is_not_found() -> None:
    assert paired_difference([1, 2, 3], [1, 2, 3]) == {"difference": 0.0, "n": 3, "interval": [0.0, 0.0], "p": 1.0}
    noise = np.random.default_rng(2).normal(size=(2, 200))
    assert paired_difference(*noise)["p"] > 0.05


def test_p_agrees_with_the_t_test_on_many_records() -> None:
    from scipy.stats import ttest_rel

    first, second = np.random.default_rng(3).normal([[0.15], [0.0]], 1, (2, 300))
    assert paired_difference(first, second)["p"] == pytest.approx(ttest_rel(first, second).pvalue, abs=0.03)


def test_many_records_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from gptailor.evaluate import bootstrap

    values = np.arange(40.0)
    whole = mean_with_interval(values)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 100)
    assert mean_with_interval(values)["interval"] == pytest.approx(whole["interval"], abs=0.5)
