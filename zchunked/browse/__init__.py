"""Browse an image: its files after all layers, and the content of one of them."""
