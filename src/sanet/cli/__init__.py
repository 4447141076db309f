"""The command line, a folder of its own: parsing, options, commands, main."""
