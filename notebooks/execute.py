"""Executes notebooks as they stand in this folder, and fails where a cell does; nothing is written back into them.

Usage: execute.py [NOTEBOOK…]     all, where none is named
       execute.py --strip         takes outputs out of all of them, as they are committed
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent


def strip(path):
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(book, path)


def execute(path):
    """Runs one; returns what is wrong, empty where nothing is."""
    book = nbformat.read(path, as_version=4)
    if any(cell.get("outputs") for cell in book.cells):
        return "it was committed with outputs: run execute.py --strip"
    try:
        NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": HERE}}).execute()
    except CellExecutionError as error:
        return str(error)
    return ""


def main(arguments):
    paths = sorted(HERE.glob("*.ipynb"))
    if arguments == ["--strip"]:
        for path in paths:
            strip(path)
        return 0
    failed = 0
    for path in [Path(name) for name in arguments] or paths:
        begun = time.monotonic()
        wrong = execute(path)
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'ok':6}  {time.monotonic() - begun:5.1f} s  {path.name}", flush=True)
        if wrong:
            print(wrong, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
