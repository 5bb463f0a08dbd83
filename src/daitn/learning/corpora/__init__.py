"""Corpora for tests, demos and benchmarks: MedQuAD (`fetch`), and a generated stand-in (`clinic`).

`prepare` writes either as site files and test files in the formats of `records`.
"""
