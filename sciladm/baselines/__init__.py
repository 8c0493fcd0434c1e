"""Forecasts that need no network, issued as honest ensembles; what every model is held against.

Each is fitted on a `Series` of training (and validation) fields and never sees another.
"""
