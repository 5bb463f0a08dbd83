"""Settings of Sphinx."""

from __future__ import annotations

project = "DA-ITN"
html_title = "DA-ITN"
extensions = ["myst_parser", "scripts.site.linked_sources", "scripts.site.menu"]
root_doc = "README"

# Parts of a page are named as forges name them, and any of them may be linked to.
myst_heading_anchors = 6
myst_url_schemes = ["http", "https", "mailto", "checkout"]
# What is shown of terminals and files need not be whole.
suppress_warnings = ["misc.highlighting_failure"]

# Furo brings its fonts and scripts along: nothing is loaded from elsewhere.
html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
