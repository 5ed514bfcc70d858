"""One blob on its way: plan, runs, what has arrived, who takes it whole."""
