"""What the person gets: an image from the store, written where and how they asked."""
