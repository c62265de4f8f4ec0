"""Training: knows torch and the callables that it is given."""
