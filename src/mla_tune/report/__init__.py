"""One page for the people who read results: plots of tables, studies, recordings and nights."""
