"""The command `steindreamer`; each subcommand is imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..command import DONE, Parser
from ..errors import nearest
from ..streams import put, repair_streams

COMMANDS = {
    "run": "generate a textured mesh from a prompt (the default command)",
    "batch": "make an asset for every prompt of a file: batch prompts.csv --out DIR",
    "resume": "continue an interrupted run: resume RUN",
    "export": "export a run's asset again with other settings: export RUN export.face_budget=5000",
    "retexture": 'give a mesh file another texture: retexture FILE --prompt "a red mug"',
    "finish": "turn a mesh file into a package for an engine: finish FILE --preset unity",
    "list": "list representations, methods, priors and presets; list PATTERN shows only matching names",
    "settings": "print all settings of a run with their final values",
    "compare": "compare methods over prompts and seeds",
    "view": "show a run or a file in the browser: view RUN",
    "audit": "check whether an asset file is ready for an engine: audit FILE --preset unity",
    "probe": "measure the gradient variance of several methods on the scene of a run",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0 done, 1 error, 2 usage error, 128 + a signal's number."""
    repair_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else ""
    if name in ("-h", "--help"):
        put(_help())
        return DONE
    if name == "--version":
        from importlib.metadata import version

        put(f"steindreamer {version('steindreamer')}")
        return DONE
    if name in COMMANDS:
        return _call(name, words[1:])
    if name and not name.startswith("-") and "=" not in name:
        Parser(prog="steindreamer").error(f"unknown command '{name}'{nearest(name, list(COMMANDS))}")
    return _call("run", words)


def _call(name: str, words: Sequence[str]) -> int:
    prog = f"steindreamer {name}"
    if name == "batch":
        from .batch import main as batch

        return batch(words, prog)
    if name == "compare":
        from .compare import main as compare

        return compare(words, prog)
    if name == "probe":
        from .probe import main as probe

        return probe(words, prog)
    if name == "audit":
        from .audit import main as audit

        return audit(words, prog)
    if name == "finish":
        from .finish import main as finish

        return finish(words, prog)
    if name == "view":
        from .view import main as view

        return view(words, prog)
    if name == "retexture":
        from .retexture import main as retexture

        return retexture(words, prog)
    if name == "list":
        from .listing import main as listing

        return listing(words, prog)
    from .run import main as run

    if name in ("resume", "export"):
        words = [*_resumed(name, words), *(["--overwrite"] if name == "export" else [])]
    return run(["--settings", *words] if name == "settings" else words, prog)


def _resumed(name: str, words: Sequence[str]) -> list[str]:
    """The arguments of a resumed run: its folder first; else options such as --help, or the newest run of --prompt."""
    if words and not words[0].startswith("-") and "=" not in words[0]:
        return ["--resume", "--out", *words]
    if words and words[0].startswith("-"):
        return ["--resume", *words]
    Parser(prog=f"steindreamer {name}").error(f"give the folder of a run: steindreamer {name} RUN")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        [
            "usage: steindreamer [COMMAND] ...",
            "",
            "Text-to-3D: a game-ready textured mesh from a prompt, by score distillation.",
            "",
            "commands:",
            *lines,
            "",
            'The default command is run, for example: steindreamer --prompt "a red mug" --out runs/mug',
            "steindreamer COMMAND --help shows the options of a command; steindreamer --version prints the version.",
        ]
    )
