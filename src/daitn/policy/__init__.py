"""Filter, score, pick: how every decision is made and explained."""
