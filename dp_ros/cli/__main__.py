"""`python -m dp_ros.cli`: the command line where no script is installed."""

import sys

from dp_ros.cli import main

if __name__ == "__main__":
    sys.exit(main())
