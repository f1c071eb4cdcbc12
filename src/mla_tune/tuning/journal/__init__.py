"""The journal file of a run's studies: every trial and verdict, one checked line each."""
