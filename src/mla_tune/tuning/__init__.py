"""Which plan is published for a shape: a run, its table jobs, its studies and its verdicts."""
