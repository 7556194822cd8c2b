"""Data, training and evaluation of the shipped geometry estimator."""
