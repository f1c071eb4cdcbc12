"""How long a plan takes, and whether its output is right: the bench, its worker and recordings."""
