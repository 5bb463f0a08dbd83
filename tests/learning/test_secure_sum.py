"""Secure sums: exact whoever is lost, or none; and a relay sees no more than the sum."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daitn.identity.keys import SigningKey
from daitn.learning.secure_sum.fixed_point import FixedPoint, Words
from daitn.learning.secure_sum.masks import neighbours
from daitn.learning.secure_sum.member import SumMember, least_shares, signed_of_agreement
from daitn.learning.secure_sum.shamir import PRIME, joined, split
from daitn.learning.secure_sum.unmasking import unmasked
from daitn.objects.errors import Corrupt, InvalidInput, Refused
from daitn.objects.identifiers import SiteId
from daitn.objects.secure_sum import Agreement, MemberKeys, Revealed, SumTerms

NUMBERS = 5


def signed(name: str, data: bytes) -> str:
    """Stands for a signature: nobody forges one in these tests but on purpose."""
    return hashlib.blake2b(name.encode() + data).hexdigest()


def added(summands: Iterable[Words]) -> Words:
    total = np.zeros(NUMBERS, np.uint64)
    for words in summands:
        total = total + words
    return total


class Scene:
    """Members and an honest relay, of whom some are lost before each phase."""

    def __init__(self, members: int, least: int, seed: int = 0) -> None:
        names = tuple(SiteId(f"s{number:04}") for number in range(members))
        self.terms = SumTerms(name="j-1.1", members=names, least=least, numbers=NUMBERS)
        draws = random.Random(seed)
        self.words = {
            name: np.array([draws.getrandbits(64) for _ in range(NUMBERS)], np.uint64)
            for name in names
        }
        self.members = {
            name: SumMember(
                self.terms,
                name,
                lambda data, name=name: signed(name, data),  # type: ignore[misc]
                lambda name, data, signature: signed(name, data) == signature,
                draws.randbytes,
            )
            for name in names
        }
        self.keys: dict[SiteId, MemberKeys] = {}
        self.sealed: dict[SiteId, dict[SiteId, bytes]] = {}
        self.masked: dict[SiteId, Words] = {}
        self.agreed: dict[SiteId, Agreement] = {}
        self.revealed: dict[SiteId, Revealed] = {}

    def run(self, lost: dict[SiteId, int]) -> Words:
        """`lost`: the phase, from 1, in which a member is there no longer."""

        def there(phase: int) -> list[SiteId]:
            return [name for name in self.members if lost.get(name, 9) > phase]

        self.keys = {name: self.members[name].keys() for name in there(1)}
        self.sealed = {name: self.members[name].shares(self.keys) for name in there(2)}
        self.masked = {name: self.mask(name) for name in there(3)}
        self.agreed = {
            name: self.members[name].agreement(self.sealed.keys(), self.masked.keys())
            for name in there(4)
        }
        signatures = {name: one.signature for name, one in self.agreed.items()}
        self.revealed = {name: self.members[name].revealed(signatures) for name in there(5)}
        return self.unmask()

    def mask(self, name: SiteId) -> Words:
        to_it = {by: sealed[name] for by, sealed in self.sealed.items() if name in sealed}
        return self.members[name].masked(self.words[name], to_it)

    def unmask(self) -> Words:
        if not self.agreed:
            raise Refused("nobody is left")
        agreed = next(iter(self.agreed.values()))
        return unmasked(self.terms, agreed, self.masked, self.keys, self.revealed)

    def total(self, names: Collection[SiteId]) -> Words:
        return added(self.words[name] for name in names)


@st.composite
def losses(draw: Any) -> tuple[int, int, dict[SiteId, int], int]:
    members = draw(st.integers(2, 9))
    least = draw(st.integers(2 * members // 3 + 1, members))
    names = [SiteId(f"s{number:04}") for number in range(members)]
    lost = draw(st.dictionaries(st.sampled_from(names), st.integers(1, 5), max_size=members))
    return members, least, lost, draw(st.integers(0, 2**32))


@settings(deadline=None, max_examples=60)
@given(losses())
def test_a_sum_is_exact_whoever_is_lost_or_there_is_none(
    drawn: tuple[int, int, dict[SiteId, int], int],
) -> None:
    members, least, lost, seed = drawn
    scene = Scene(members, least, seed)
    if members - len(lost) >= least:
        summed = [name for name in scene.members if lost.get(name, 9) > 3]
        np.testing.assert_array_equal(scene.run(lost), scene.total(summed))
        return
    with pytest.raises(Refused):
        scene.run(lost)
    # Too few members revealed anything for any secret to come back.
    assert len(scene.revealed) < least
    for name in scene.members:
        for kind in ("seeds", "keys"):
            told = sum(name in getattr(each, kind) for each in scene.revealed.values())
            assert told < least_shares(scene.terms, name)


def test_many_members_have_few_neighbours_and_lose_some() -> None:
    scene = Scene(40, 27)
    around = {name: neighbours(scene.terms, name) for name in scene.members}
    assert {len(each) for each in around.values()} == {30}
    assert all(name in around[other] for name, each in around.items() for other in each)
    lost = {SiteId(f"s{number:04}"): 1 + number % 5 for number in range(0, 40, 9)}
    summed = [name for name in scene.members if lost.get(name, 9) > 3]
    np.testing.assert_array_equal(scene.run(lost), scene.total(summed))


def test_nothing_that_a_relay_sees_of_a_member_shows_its_numbers() -> None:
    """All that is masked is uniform: with other numbers it looks the same, and equal numbers look
    different at each member and in each sum."""
    ones = {}
    for seed in range(60):
        scene = Scene(4, 3, seed)
        scene.words = {name: np.zeros(NUMBERS, np.uint64) for name in scene.members}
        scene.run({SiteId("s0003"): 4})
        ones[seed] = scene.masked[SiteId("s0000")]
        first, second, *_ = scene.masked.values()
        assert not np.array_equal(first, second)
        own = [each.seeds.keys() & each.keys.keys() for each in scene.revealed.values()]
        assert not any(own)
    bits = np.unpackbits(np.stack(list(ones.values())).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 4 * 0.5 / len(bits) ** 0.5


def test_a_relay_that_tells_two_stories_gets_no_second_sum() -> None:
    """It would have both secrets of a member: a mask of its own, and the key of the others."""
    scene = Scene(5, 4)
    names = list(scene.members)
    scene.keys = {name: one.keys() for name, one in scene.members.items()}
    scene.sealed = {name: one.shares(scene.keys) for name, one in scene.members.items()}
    scene.masked = {name: scene.mask(name) for name in names}
    whole, without = names, names[:4]
    said = {name: scene.members[name].agreement(names, without) for name in names[:1]}
    said |= {name: scene.members[name].agreement(names, whole) for name in names[1:]}
    signatures = {name: one.signature for name, one in said.items()}
    for name in names[:1]:
        with pytest.raises(Refused):
            scene.members[name].revealed(signatures)
    told = {name: scene.members[name].revealed(signatures) for name in names[1:]}
    assert all(set(each.seeds) == set(names) and not each.keys for each in told.values())
    for name in names:  # Neither to go back nor to say it again.
        for again in (
            lambda name=name: scene.members[name].agreement(names, without),
            lambda name=name: scene.members[name].revealed(signatures),
            lambda name=name: scene.mask(name),
        ):
            with pytest.raises(Refused):
                again()


@pytest.mark.parametrize("members", range(3, 12))
def test_a_relay_that_is_a_member_and_signs_two_stories_gets_no_second_sum(members: int) -> None:
    """With half of the members being enough, in a sum of three it would have had both secrets of
    each of the others: those of the one agree with it on one sum, those of the other on another."""
    scene = Scene(members, 2 * members // 3 + 1)
    liar, *honest = scene.members
    scene.keys = {name: one.keys() for name, one in scene.members.items()}
    scene.sealed = {name: one.shares(scene.keys) for name, one in scene.members.items()}
    scene.masked = {name: scene.mask(name) for name in scene.members}
    victim, names = honest[-1], list(scene.members)
    stories = {True: names, False: [name for name in names if name != victim]}
    told: dict[bool, list[Revealed]] = {True: [], False: []}
    half = len(honest) // 2
    for whole, some in ((False, honest[:half]), (True, honest[half:])):
        agreed = Agreement(shared=tuple(names), summed=tuple(stories[whole]), signature="")
        signatures = {liar: signed(liar, signed_of_agreement(scene.terms, agreed))}
        with suppress(Refused):
            for name in some:
                one = scene.members[name].agreement(names, stories[whole])
                signatures[name] = one.signature
            for name in some:
                told[whole].append(scene.members[name].revealed(signatures))
    assert not (told[True] and told[False])


def test_keys_shares_and_sums_of_a_relays_own_are_not_taken() -> None:
    scene = Scene(4, 3)
    first, second, third, fourth = scene.members
    scene.keys = {name: one.keys() for name, one in scene.members.items()}
    foreign = Scene(4, 3, seed=1).members[second].keys()
    forged = {**scene.keys, second: msgspec.structs.replace(foreign, signature="no")}
    with pytest.raises(Corrupt, match="did not sign"):
        scene.members[first].shares(forged)
    sealed = {name: scene.members[name].shares(scene.keys) for name in (second, third, fourth)}
    with pytest.raises(Corrupt, match="does not open"):
        scene.members[second].masked(scene.words[second], {third: sealed[third][first]})
    hidden = scene.members[third]
    hidden.masked(scene.words[third], {name: sealed[name][third] for name in (second, fourth)})
    with pytest.raises(Refused, match="too few"):
        hidden.agreement([second, third], [third])


def test_a_wrong_share_gives_no_sum() -> None:
    scene = Scene(4, 3)
    scene.run({})
    name, told = next(iter(scene.revealed.items()))
    wrong = {**told.seeds, name: bytes(33)}
    scene.revealed[name] = msgspec.structs.replace(told, seeds=wrong)
    with pytest.raises(Corrupt, match="another one"):
        scene.unmask()


@given(secret=st.binary(min_size=32, max_size=32), least=st.integers(1, 6), seed=st.integers())
def test_any_shares_that_are_enough_give_a_secret_back_and_fewer_give_any(
    secret: bytes, least: int, seed: int
) -> None:
    draws = random.Random(seed)
    shares = split(secret, range(1, 9), least, draws.randbytes)
    chosen = dict(draws.sample(sorted(shares.items()), least))
    assert joined(chosen) == secret
    # With one share less, any other secret has a polynomial through the rest.
    place, _ = chosen.popitem()
    other = draws.randbytes(32)
    points = {0: other, **chosen}
    value = 0
    for at, share in points.items():
        above = below = 1
        for to in points:
            if to != at:
                above, below = above * (place - to) % PRIME, below * (at - to) % PRIME
        value += int.from_bytes(share) * above * pow(below, -1, PRIME)
    assert joined({**chosen, place: (value % PRIME).to_bytes(33)}) == other


def test_the_field_is_one() -> None:
    """By Fermat, and by Miller and Rabin."""
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        power = pow(base, odd, PRIME)
        assert power in (1, PRIME - 1) or any(
            pow(power, 2**k, PRIME) == PRIME - 1 for k in range(twos)
        )


@given(
    st.lists(
        st.lists(st.floats(-50, 50), min_size=NUMBERS, max_size=NUMBERS), min_size=1, max_size=40
    )
)
def test_sums_of_real_numbers_are_off_by_half_a_step_a_member(rows: list[list[float]]) -> None:
    point = FixedPoint(50.0, len(rows))
    words = added(point.words(np.array(row)) for row in rows)
    exact = np.sum(np.array(rows), axis=0)
    error = np.abs(point.numbers(words) - exact).max()
    assert error <= len(rows) * (point.step / 2 + 50.0 * 2**-52)
    assert point.step < 1e-14


@pytest.mark.parametrize("bad", [50.1, float("nan"), float("inf")])
def test_a_number_beyond_the_bound_is_refused(bad: float) -> None:
    with pytest.raises(InvalidInput) as raised:
        FixedPoint(50.0, 3).words(np.array([1.0, bad]))
    assert raised.value.fix


def test_sites_sign_with_the_keys_that_they_have() -> None:
    """The seam fits the identity's keys."""
    keys = {SiteId(name): SigningKey.generate() for name in ("a", "b")}
    terms = SumTerms(name="j", members=tuple(keys), least=2, numbers=1)

    def member(name: SiteId, key: SigningKey) -> SumMember:
        return SumMember(terms, name, lambda data: key.sign_raw(data).hex(), lambda *_: True)

    members = {name: member(name, key) for name, key in keys.items()}
    told = {name: one.keys() for name, one in members.items()}
    assert all(len(one.signature) == 128 for one in told.values())


def test_terms_that_could_be_agreed_to_twice_are_none() -> None:
    with pytest.raises(ValueError, match="least"):
        SumTerms(name="j", members=tuple(map(SiteId, "abcd")), least=2, numbers=1)
    with pytest.raises(ValueError, match="members"):
        SumTerms(name="j", members=tuple(map(SiteId, "aab")), least=2, numbers=1)
