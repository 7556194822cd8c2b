"""Comparing distillation methods: variance probes and repeated runs, tables, plots and a page about them."""
