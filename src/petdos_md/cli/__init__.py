"""The command ``petdos``: one module a command, with its arguments and what it does. Imported by nothing."""
