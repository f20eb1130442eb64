"""Spans and metrics over OTLP/HTTP. Off unless the standard variables name a collector.

`settings` reads the variables and imports nothing of OpenTelemetry; who wires imports
`client` or `server` only when it says so. Spans are made from finished rows and
metrics from bucket arrays, in a thread of their own: what stamps answers or writes
tokens only puts a reference into a bounded queue.
"""
