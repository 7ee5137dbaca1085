"""The command line: a parser, a handler for each command, the session that a run is."""
