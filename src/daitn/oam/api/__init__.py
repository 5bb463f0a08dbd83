"""The control centre's HTTP API, version 1.

One table (`routes.py`) says what there is: requests are dispatched by it, and OpenAPI's
description, the reference page and the client are made from it or checked against it. Every
question goes to the control centre as if its caller had asked over the fabric, so the same rules
hold.
"""
