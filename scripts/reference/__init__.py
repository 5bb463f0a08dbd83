"""Tables of the reference, made from the types: `python -m scripts.reference`.

A page marks where a table stands, and which:

    <!-- generated: fields node.config.NodeConfig -->
    ...
    <!-- end -->

What is between the two lines is replaced; everything else on the page is written by hand. The first
word names one of `daitn`'s kinds of tables (`tables.py`), the others are what that kind needs.
"""
