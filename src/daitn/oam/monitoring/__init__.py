"""How a process shows itself to Prometheus and OpenTelemetry."""
