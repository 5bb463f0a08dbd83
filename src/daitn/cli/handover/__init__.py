"""Models handed to people outside the network: the documents that accompany the weights, and their
checks, of which `table.py` has one for each file.

::

    manifest.json                         the parts' digests, of which one names the model
    lineage.json                          the entries that sites signed, as they signed them
    README.md                             the model card
    model.sig                             OpenSSF Model Signing: every other file
    provenance/exporter.pem               the key of `model.sig`
    provenance/exporter.dsse.json         whose that is: a statement by a key in the roster
    provenance/statements.intoto.jsonl    in-toto: a statement for each entry of the lineage
    provenance/bom.cdx.json               CycloneDX ML-BOM
    provenance/datasets/SITE.NAME.json    Croissant, of each data set that is still on offer
"""
