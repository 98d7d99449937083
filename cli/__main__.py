"""`python -m subpc.cli`: the command line where a module is asked for, as torchrun does."""

from subpc.cli.main import main

main()
