"""Where an image goes: checked first, written at the end."""
