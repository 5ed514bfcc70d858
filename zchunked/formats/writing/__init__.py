"""Write a tar as a blob of frames with a table of contents."""
