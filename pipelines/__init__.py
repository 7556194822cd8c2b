"""Joins representations and priors: stages, command line, checkpoints, export."""
