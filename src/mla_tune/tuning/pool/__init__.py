"""Several devices at one run's work: each batch shape is tuned whole on one of them."""
