"""Comparison of distillation methods: variance probes, repeated runs, tables, plots and an HTML page."""
