"""`python -m tagonce` is `tagonce`."""

from tagonce.cli import main

if __name__ == "__main__":
    main()
