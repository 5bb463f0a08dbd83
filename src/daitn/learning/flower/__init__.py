"""Bridges to Flower (https://flower.ai): its apps as a recipe, and recipes as its clients.

Flower pins other versions of what DA-ITN needs (uvicorn, typer, rich). So `client` runs in an
environment of Flower's, without DA-ITN's packages, and starts `visit` in one of DA-ITN's.
"""
