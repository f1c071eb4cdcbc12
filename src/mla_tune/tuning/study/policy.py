"""How plans are proposed: all of them in turn, or by one of Optuna's samplers."""

__all__ = ["LARGEST_ENUMERATED", "Policy"]

from dataclasses import dataclass

LARGEST_ENUMERATED = 100


@dataclass(frozen=True)
class Policy:
    """How plans are proposed.

    Attributes:
        name: ``enumerate`` tries every plan; ``tpe``, ``gp``, ``random`` and ``brute force`` are
            Optuna's samplers over the knobs.
        patience: stop after this many trials in a row without a better plan; None: never.
        budget: the most plans that a sampler tries; None: all.
        seed: of the sampler.
    """

    name: str = "enumerate"
    patience: int | None = None
    budget: int | None = None
    seed: int = 0

    @classmethod
    def for_space(cls, num_plans: int) -> "Policy":
        """Enumerate up to a hundred plans; beyond, a Gaussian process with patience.

        docs/search-launches.md compares it with others on a recording of 612 plans.
        """
        if num_plans <= LARGEST_ENUMERATED:
            return cls()
        return cls("gp", patience=25, budget=60)
