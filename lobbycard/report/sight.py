"""Which labels a model can tell at all, by its average precision beside what a random order scores."""

import math
from collections.abc import Sequence

from lobbycard.scoring.paired import ENOUGH_POSITIVES

CLEARLY = 0.05  # of the way from chance to perfect, at the interval's lower end; a convention, as that of 95 %
FEW = ENOUGH_POSITIVES  # as when two models are compared

SIGHTS = SEEN, BARELY, CHANCE, UNKNOWN = "seen", "barely", "chance", "unknown"


def skill(ap: float, prevalence: float) -> float:
    """How far an average precision has come from a random order (0, whose value is the prevalence) to perfect (1).

    Source: the chance correction of Cohen, "A Coefficient of Agreement for Nominal Scales", 1960; that a random order's
    average precision is the prevalence holds in the limit of many items.
    """
    return (ap - prevalence) / (1 - prevalence) if prevalence < 1 else 0.0


def sight(ap_ci95: Sequence[float] | None, prevalence: float, support: int) -> str:
    """What an interval of average precision says of one label.

    Returns:
        `seen`: its lower end lies clearly above chance; `barely`: above, by less than `CLEARLY`; `chance`: it does not;
        `unknown`: fewer than `FEW` items have the label, or there is no interval.
    """
    if support < FEW or ap_ci95 is None or not all(map(math.isfinite, ap_ci95)):
        return UNKNOWN
    above = skill(ap_ci95[0], prevalence)
    return SEEN if above >= CLEARLY else BARELY if above > 0 else CHANCE
