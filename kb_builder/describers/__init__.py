"""Describers: the models and measurements that write descriptions."""
