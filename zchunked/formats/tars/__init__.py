"""Tars: read with every header byte, and the recipes that rebuild them."""
