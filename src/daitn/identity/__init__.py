"""Keys, certificates, signatures, passes and sealed payloads."""
