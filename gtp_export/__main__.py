"""``python -m gtp_export``."""

from gtp_export.cli import main

if __name__ == "__main__":
    main()
