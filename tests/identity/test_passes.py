"""Passes: who is let in at a site, for how long, and who is not."""

from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daitn.identity import passes
from daitn.identity.keys import SigningKey
from daitn.identity.passes import PASS_LASTS_S, PassBook, sign_pass
from daitn.objects.errors import Refused
from daitn.objects.identifiers import SiteId

NOW_S = 1_000_000.0
GW, MDF, ELSEWHERE = SiteId("gw"), SiteId("mdf"), SiteId("elsewhere")
KEY, OTHER_KEY = SigningKey.generate(), SigningKey.generate()


def book(**keys: SigningKey) -> PassBook:
    known = {SiteId(site): key.public for site, key in {"gw": KEY, **keys}.items()}
    return PassBook(MDF, known.get)


def refusal(shown: str, at_s: float = NOW_S, at: PassBook | None = None) -> str:
    with pytest.raises(Refused, match="not valid at mdf") as raised:
        (at or book()).holder(shown, at_s)
    assert raised.value.field == "daitn-pass"
    assert raised.value.fix
    # What follows names the clocks, see below.
    return raised.value.problem.partition(": ")[2].partition(";")[0]


def claimed(**said: object) -> str:
    """A pass that says what it likes, signed by the gateway."""
    claim = {"holder": "gw", "audience": "mdf", "until_s": NOW_S + PASS_LASTS_S, **said}
    signed = {"claim": claim, "signature": KEY.sign(msgspec.msgpack.encode(claim))}
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(signed)).decode()


def test_a_pass_is_good_until_it_ends_and_as_often_as_it_is_shown() -> None:
    shown, at = sign_pass(GW, MDF, NOW_S, KEY), book()
    for after_s in (0.0, 0.0, 60.0, PASS_LASTS_S - 0.001):
        assert at.holder(shown, NOW_S + after_s) == GW
    assert refusal(shown, NOW_S + PASS_LASTS_S, at) == "it has ended"
    assert refusal(shown, NOW_S + PASS_LASTS_S) == "it has ended"


def test_it_is_a_header_that_any_server_takes() -> None:
    shown = sign_pass(SiteId("g" * 63), SiteId("m" * 63), NOW_S, KEY)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) < 1024


@pytest.mark.parametrize("ahead_s", [-60.0, 60.0, PASS_LASTS_S - 1, 1 - PASS_LASTS_S])
def test_clocks_may_differ(ahead_s: float) -> None:
    assert book().holder(sign_pass(GW, MDF, NOW_S + ahead_s, KEY), NOW_S) == GW


def test_clocks_that_differ_too_much_are_told_apart() -> None:
    assert refusal(sign_pass(GW, MDF, NOW_S + PASS_LASTS_S + 1, KEY)) == "it lasts too long"
    assert refusal(sign_pass(GW, MDF, NOW_S - PASS_LASTS_S, KEY)) == "it has ended"


@pytest.mark.parametrize(
    ("ahead_s", "told"),
    [
        (-300.0, "the clock of gw is about 300 s behind that of mdf"),
        (300.0, "the clock of gw is about 300 s ahead of that of mdf"),
    ],
)
def test_a_clock_that_is_wrong_is_named(ahead_s: float, told: str) -> None:
    with pytest.raises(Refused, match=told):
        book().holder(sign_pass(GW, MDF, NOW_S + ahead_s, KEY), NOW_S)


def test_a_pass_for_another_site_is_none_here() -> None:
    assert refusal(sign_pass(GW, ELSEWHERE, NOW_S, KEY)) == "it is for elsewhere"


def test_a_pass_in_anothers_name_is_none() -> None:
    assert refusal(sign_pass(GW, MDF, NOW_S, OTHER_KEY)) == "gw did not sign it"
    assert refusal(sign_pass(ELSEWHERE, MDF, NOW_S, KEY)) == "elsewhere is not known here"
    mine = sign_pass(ELSEWHERE, MDF, NOW_S, OTHER_KEY)
    assert book(elsewhere=OTHER_KEY).holder(mine, NOW_S) == ELSEWHERE


def test_what_was_signed_cannot_be_changed() -> None:
    taken = msgspec.msgpack.decode(base64.urlsafe_b64decode(sign_pass(GW, MDF, NOW_S, KEY)))
    for changed in ({"until_s": NOW_S + 200.0}, {"holder": "elsewhere"}):
        forged = {**taken, "claim": {**taken["claim"], **changed}}
        shown = base64.urlsafe_b64encode(msgspec.msgpack.encode(forged)).decode()
        assert "did not sign it" in refusal(shown, at=book(elsewhere=OTHER_KEY))


@pytest.mark.parametrize("until_s", [float("nan"), float("inf"), NOW_S + 1e9])
def test_no_pass_is_for_ever(until_s: float) -> None:
    assert refusal(claimed(until_s=until_s)) == "it lasts too long"


def test_a_pass_that_never_was_good_has_ended() -> None:
    assert book().holder(claimed(), NOW_S) == GW
    assert refusal(claimed(until_s=float("-inf"))) == "it has ended"


def test_the_wrong_kind_of_claim_is_not_readable() -> None:
    assert refusal(claimed(until_s="soon")) == "it cannot be read"
    assert refusal(claimed(holder=["gw"])) == "it cannot be read"


@pytest.mark.parametrize("shown", ["", "=", "é", "gqdjbGFpbQ==", "A" * 2049, "A" * 1_000_000])
def test_garbage_is_no_pass(shown: str) -> None:
    assert refusal(shown) in ("it cannot be read", "it is too long")


@given(
    st.text(max_size=200)
    | st.binary(max_size=200).map(lambda b: base64.urlsafe_b64encode(b).decode())
)
def test_no_garbage_is_a_pass(shown: str) -> None:
    with pytest.raises(Refused):
        book().holder(shown, NOW_S)


def test_other_spellings_of_a_pass_are_none() -> None:
    shown = sign_pass(GW, MDF, NOW_S, KEY)
    assert refusal(shown[:20] + " " + shown[20:]) == "it cannot be read"
    assert refusal(shown[:20] + "!" + shown[20:]) == "it cannot be read"


def test_a_good_pass_is_checked_once_and_a_bad_one_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known: dict[SiteId, str] = {}
    checked = []
    monkeypatch.setattr(passes, "check_received", lambda *said: checked.append(said))
    at, shown = PassBook(MDF, known.get), sign_pass(GW, MDF, NOW_S, KEY)
    refusal(shown, at=at)
    known[GW] = KEY.public
    for _ in range(5):
        assert at.holder(shown, NOW_S) == GW
    assert len(checked) == 1


def test_a_pass_ends_with_the_membership_of_its_holder() -> None:
    known = {GW: KEY.public}
    at, shown = PassBook(MDF, known.get), sign_pass(GW, MDF, NOW_S, KEY)
    assert at.holder(shown, NOW_S) == GW
    for key in (None, OTHER_KEY.public):
        known = {GW: key} if key else {}
        at._key_of = known.get
        assert refusal(shown, at=at) == "gw is not known here any more"


def test_many_passes_do_not_fill_the_memory_and_all_are_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passes, "_MOST_KNOWN", 5)
    at = book()
    for second in range(20):
        assert at.holder(sign_pass(GW, MDF, NOW_S + second, KEY), NOW_S) == GW
        assert len(at._known) <= 5
    later_s = NOW_S + 2 * PASS_LASTS_S
    assert at.holder(sign_pass(GW, MDF, later_s, KEY), later_s) == GW
    assert len(at._known) == 1, "those that ended made room"
