"""``python -m softde.cli``."""

from softde.cli import main

if __name__ == "__main__":
    main()
