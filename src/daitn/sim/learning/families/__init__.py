"""Families of synthetic worlds, one per stress. Each is a function of a seed."""

from __future__ import annotations

from collections.abc import Callable

from daitn.sim.learning.families import data_stress, network_stress
from daitn.sim.learning.world import LearningWorld

__all__ = ["FAMILIES"]

FAMILIES: dict[str, Callable[[int], LearningWorld]] = {
    "plain": network_stress.plain,
    "tiny": network_stress.tiny,
    "large": network_stress.large,
    "slow links": network_stress.slow_links,
    "prices": network_stress.prices,
    "deadline": network_stress.deadline,
    "jurisdictions": network_stress.jurisdictions,
    "leaving": network_stress.leaving,
    "growing": network_stress.growing,
    "hanging": network_stress.hanging,
    "wrong topics": data_stress.wrong_topics,
    "inflated": data_stress.inflated,
    "poisoned": data_stress.poisoned,
    "duplicates": data_stress.duplicates,
    "single class": data_stress.single_class,
    "conflicting": data_stress.conflicting,
    "clients": data_stress.clients,
    "alike": data_stress.alike,
    "out of reach": data_stress.out_of_reach,
}
"""By name; the function's docstring describes each family."""
