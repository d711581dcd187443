"""Serving: a server that predicts texts over HTTP."""
