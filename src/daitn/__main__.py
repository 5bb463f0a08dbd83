"""`python -m daitn`: the command line."""

from daitn.cli.app import main

main()
