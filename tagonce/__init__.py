"""The command line: settings, commands, the review page, everything on one machine."""
