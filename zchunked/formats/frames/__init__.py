"""Frames of a blob: decoded within limits, mapped, fingerprinted."""
