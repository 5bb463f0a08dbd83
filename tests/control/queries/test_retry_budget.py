"""Retries of a gateway stay a share of its queries."""

from __future__ import annotations

from daitn.control.queries.retry_budget import LEAST_PER_S, WINDOW_S, RetryBudget


def test_a_retry_budget_is_a_share_of_the_last_ten_seconds() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.deposit(100.5)
    floor = LEAST_PER_S * WINDOW_S
    assert sum(budget.spend(101.0) for _ in range(1000)) == floor + 200
    assert not budget.spend(109.9)
    assert sum(budget.spend(111.5) for _ in range(1000)) == floor
    assert sum(budget.spend(5000.0) for _ in range(1000)) == floor
