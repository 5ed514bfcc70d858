"""An image as files: layouts, archives, the layers in them."""
