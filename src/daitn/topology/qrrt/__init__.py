"""QRRT: the live topology for inference, and its cut for one query (QS-QRRT)."""
