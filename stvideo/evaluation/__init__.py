"""What the evaluation command is made of: the videos to measure on, reports, sweeps over budgets, comparisons."""
