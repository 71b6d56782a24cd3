"""The command line: one file per command; only `output` prints, only `errors` explains."""
