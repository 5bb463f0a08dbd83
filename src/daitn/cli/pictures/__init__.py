"""The demo's pictures, as SVG: a map with its route, charts and flows."""
