"""Engines of this machine: their names for images, their commands, what is loaded."""
