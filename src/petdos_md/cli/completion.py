"""``petdos completion``: let a shell complete commands, options, files and folders."""

from __future__ import annotations

import argparse

from .arguments import Commands, new_command


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(
        commands,
        "completion",
        "Print a script with which a shell completes commands, options, files and folders.\n"
        "For bash: petdos completion bash > ~/.local/share/bash-completion/completions/petdos\n"
        "For zsh, in a folder of $fpath: petdos completion zsh > ~/.zfunc/_petdos\n"
        "For tcsh: petdos completion tcsh > ~/.petdos.completion.csh, and `source` it in ~/.tcshrc",
        "  petdos completion bash",
        run,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from .main import make_parser

    print(shtab.complete(make_parser(), args.shell))
    return 0
