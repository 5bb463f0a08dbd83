"""The documentation as a site, made by Sphinx from the pages as they are: `make docs`.

Pages are written for a forge, so what a site needs besides is made here: its menu from the table of
the first page, and pages of the code that they link to, as a site is read without a checkout.
"""
