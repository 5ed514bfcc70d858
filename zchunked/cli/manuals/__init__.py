"""What is generated from the tables: help, the manual page, shell completions."""
