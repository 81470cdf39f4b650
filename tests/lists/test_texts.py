"""Learnt reasons: used only when two clients agree, and never another client's own."""

import pytest

from hybridgrey.lists.texts import LIFETIME, MOST, Reasons

CODE = (bytes([127, 0, 0, 2]),)
OTHER = (bytes([127, 0, 0, 4]),)


def taught(*texts):
    reasons = Reasons()
    for client, text in texts:
        reasons.learn("bl.test", CODE, client, text, 0.0)
    return reasons


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ([], None),
        ([("192.0.2.1", "see http://bl.test/192.0.2.1")], None),
        ([("192.0.2.1", "see /192.0.2.1"), ("192.0.2.1", "see /192.0.2.1")], None),
        ([("192.0.2.1", "see /192.0.2.1"), ("192.0.2.2", "see /192.0.2.2")], "see /203.0.113.9"),
        ([("192.0.2.1", "SBL1 /192.0.2.1"), ("192.0.2.2", "SBL2 /192.0.2.2")], None),
        ([("192.0.2.1", "listed"), ("192.0.2.2", "listed")], None),
        ([("192.0.2.1", "a /192.0.2.1"), ("192.0.2.2", "a /192.0.2.2"), ("192.0.2.3", "gone")], None),
        ([("192.0.2.1", "a /192.0.2.1"), ("192.0.2.2", "a /192.0.2.2"), ("192.0.2.3", "b /192.0.2.3")], None),
        ([("192.0.2.1", "\0 192.0.2.1"), ("192.0.2.2", "\0 192.0.2.2")], None),
        # Of one network, one provider, one day; or the address is but the head of another one.
        (
            [("192.0.2.1", "Net 192.0.2.0/24, /192.0.2.1"), ("192.0.2.2", "Net 192.0.2.0/24, /192.0.2.2")],
            None,
        ),
        ([("192.0.2.1", "AS64500 /192.0.2.1"), ("192.0.2.2", "AS64500 /192.0.2.2")], None),
        ([("192.0.2.1", "/192.0.2.1 192.0.2.15"), ("192.0.2.2", "/192.0.2.2 192.0.2.25")], None),
        (
            [("192.0.2.1", "Level 1 /192.0.2.1."), ("192.0.2.2", "Level 1 /192.0.2.2.")],
            "Level 1 /203.0.113.9.",
        ),
        (
            [("192.0.2.1", "192.0.2.1 is 192.0.2.1"), ("192.0.2.2", "192.0.2.2 is 192.0.2.2")],
            "203.0.113.9 is 203.0.113.9",
        ),
        ([("2001:db8::1", "/2001:db8::1"), ("2001:db8::2", "/2001:db8::2")], None),
    ],
)
def test_guess(texts, wanted):
    """A text is filled in only when two different clients' texts agree but for their address."""
    assert taught(*texts).guess("bl.test", CODE, "203.0.113.9", 1.0) == wanted


def test_codes_lists_and_age_are_kept_apart():
    """A text holds for its list, its return codes and its time."""
    reasons = taught(("192.0.2.1", "see /192.0.2.1"), ("192.0.2.2", "see /192.0.2.2"))
    assert reasons.guess("bl.test", OTHER, "203.0.113.9", 1.0) is None
    assert reasons.guess("zen.test", CODE, "203.0.113.9", 1.0) is None
    assert reasons.guess("bl.test", CODE, "203.0.113.9", LIFETIME + 1) is None


def test_an_old_text_is_renewed_by_one_agreeing_answer():
    """When a learnt text has aged, one answer that agrees is enough to use it again."""
    reasons = taught(("192.0.2.1", "see /192.0.2.1"), ("192.0.2.2", "see /192.0.2.2"))
    reasons.learn("bl.test", CODE, "192.0.2.2", "see /192.0.2.2", LIFETIME + 1)
    assert reasons.guess("bl.test", CODE, "203.0.113.9", LIFETIME + 2) == "see /203.0.113.9"


def test_one_client_is_not_made_to_wait_for_ever():
    """A text that never comes is waited for twice, be it by the same client."""
    reasons = Reasons()
    for _ in range(2):
        assert reasons.worth_waiting("bl.test", CODE, "192.0.2.1", 1.0)
        reasons.waited("bl.test", 0.1)
        reasons.learn("bl.test", CODE, "192.0.2.1", "", 1.0)
    assert not reasons.worth_waiting("bl.test", CODE, "192.0.2.1", 1.0)


def test_bounded():
    """A list that answers with ever new codes does not fill the memory."""
    reasons = Reasons()
    for i in range(2 * MOST):
        reasons.learn("bl.test", (i.to_bytes(4, "big"),), "192.0.2.1", "/192.0.2.1", 0.0)
    assert len(reasons) == MOST
    assert not reasons.worth_waiting("bl.test", OTHER, "192.0.2.7", 0.0)


def test_two_clients_wait_so_that_the_text_is_learnt():
    """The first two clients with a return code wait, even for a list that is far away; then nobody does."""
    reasons = Reasons()
    for i in (1, 2):
        assert reasons.worth_waiting("bl.test", CODE, "192.0.2.7", 0.0)
        reasons.waited("bl.test", 0.05)
        reasons.learn("bl.test", CODE, f"192.0.2.{i}", "SBL1", 0.0)
    assert not reasons.worth_waiting("bl.test", CODE, "192.0.2.7", 0.0)
    assert reasons.worth_waiting("bl.test", OTHER, "192.0.2.7", 0.0)
    assert reasons.worth_waiting("bl.test", CODE, "192.0.2.7", LIFETIME + 1)


def test_one_client_that_returns_is_one_sample():
    """A client that is refused again and again does not pass for two."""
    reasons = taught(("192.0.2.1", "/192.0.2.1"), ("192.0.2.1", "/192.0.2.1"))
    reasons.waited("bl.test", 0.05)
    assert reasons.worth_waiting("bl.test", CODE, "192.0.2.7", 0.0)


def test_a_near_list_is_always_waited_for():
    """Texts that cannot be learnt are waited for where that takes a moment only."""
    reasons = taught(("192.0.2.1", "SBL1"), ("192.0.2.2", "SBL2"))
    reasons.waited("bl.test", 0.05)
    assert not reasons.worth_waiting("bl.test", CODE, "192.0.2.7", 0.0)
    reasons.waited("bl.test", 0.001)
    assert reasons.worth_waiting("bl.test", CODE, "192.0.2.7", 0.0)
