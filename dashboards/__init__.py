"""Grafana dashboards of both sides, as code; Grafana reads the JSON made of them."""
