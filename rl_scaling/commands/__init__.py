"""The subcommands of `rl-scaling`: one dataclass of options each, with a `run` that returns the exit code.

Importing them must stay quick, for `--help`: what needs torch or an emulator is imported when it is run.
"""
