"""`python -m controlplane`: the command line without an installed script."""

from controlplane.cli import main

if __name__ == "__main__":
    main()
