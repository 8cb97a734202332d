"""The command line, its commands, and `load`: the one package that knows run folders as a user does."""
