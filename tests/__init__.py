"""The tests of zpull."""
