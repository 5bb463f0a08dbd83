"""A network, routes, charts and flows as SVG, for reports and the demo."""
