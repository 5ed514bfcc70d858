"""`python -m zchunked`: the command."""

from zchunked.cli import main

if __name__ == "__main__":
    main()
