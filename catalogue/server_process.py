"""Runs ComfyUI as its main.py does, for as long as whoever started it lives: then it ends, and takes its folder along.

    python server_process.py FOLDER MAIN.PY OPTIONS...

Standard input is a pipe that nothing is written to. It closes when the other end is gone, however that came about.
"""

import os
import runpy
import shutil
import sys
import threading


def end_with(pipe, folder: str):
    pipe.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    folder, main, *options = sys.argv[1:]
    threading.Thread(target=end_with, args=(sys.stdin.buffer, folder), daemon=True).start()
    sys.argv, sys.path[0] = [main, *options], os.path.dirname(main)
    os.chdir(sys.path[0])
    runpy.run_path(main, run_name="__main__")
