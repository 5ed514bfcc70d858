"""Named objects that a layout is made of: in a directory, behind a web server, in a bucket."""
