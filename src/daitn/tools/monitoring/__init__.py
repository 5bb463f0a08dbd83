"""What a process reports about itself: metrics, and spans of traces.

Parts keep plain numbers and tell them when they are asked. Prometheus' and OpenTelemetry's own
formats are made above, in `daitn.oam.monitoring`.
"""
