"""Push and publish: have an image whole, then send what is lacking."""
