"""Learn what an image and its layers are, before anything is planned."""
