"""Run the command line with `python -m treechat`."""

from treechat.cli import main

if __name__ == "__main__":
    main()
