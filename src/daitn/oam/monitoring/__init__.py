"""Monitoring of a process by Prometheus and OpenTelemetry."""
