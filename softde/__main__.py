"""``python -m softde``, and so ``torchrun -m softde``."""

from softde.cli import main

if __name__ == "__main__":
    main()
