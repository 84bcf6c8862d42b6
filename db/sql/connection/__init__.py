"""Connections: engines, transactions, locks, errors of the drivers."""
