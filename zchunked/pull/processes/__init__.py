"""Pulls of other processes on one store: claims, and what interrupted ones left."""
