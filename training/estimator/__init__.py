"""How the shipped geometry estimator was made: its data, its training and its evaluation."""
