"""What happens without each safeguard: the check of `make chaos` fails, and names the kind and the event.

Each control takes one safeguard away (by a subclass, an override of the configuration, or an altered table; the product
has no switch for loss) and plays one scenario. Its twin plays the same scenario with the safeguard, and the same check
finds nothing. A check that cannot fail proves nothing.
"""

from __future__ import annotations

import pytest

from proof.chaos.found import Found
from proof.chaos.invariants import judge
from proof.chaos.ledger import Ledger

pytestmark = pytest.mark.rabbitmq


def test_nothing_sent_and_nothing_found_is_no_violation() -> None:
    assert judge(Ledger(), Found([], [])) == []
