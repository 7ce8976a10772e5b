"""`python -m pplr_lightning`."""

from pplr_lightning.cli import main

if __name__ == "__main__":
    main()
