"""Autonomous AI traffic steering (AATS): AI objects find their own way, hop by hop."""
