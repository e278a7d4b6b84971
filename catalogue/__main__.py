"""Draws every row of a table with a workflow, on many ComfyUIs: see docs/catalogue.md.

    python -m catalogue rows.csv --workflow workflows/api/paper_doll.json --out pictures
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

# Ray tells its makers nothing, and leaves a CPU's worker alone.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from comfy_answers import ComfyError, printable
from comfy_client import Comfy
from compose import header
from workflow_changes import read_workflow
from yarl import URL

from . import API
from .results import SHEET, TABLE, Results
from .rows import Pictures, Row, check
from .run import Run, Settings
from .server import NoStart, Start
from .table import TableError, read_table


def origin(text: str) -> URL:
    url = URL(text)
    if url.scheme not in ("http", "https") or not url.host or url != url.origin():
        raise argparse.ArgumentTypeError(f"'{text}' is no origin, such as https://example.com")
    return url


def server(text: str) -> str:
    try:
        Comfy(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m catalogue", description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="rows as .csv, .jsonl or .parquet")
    parser.add_argument("--workflow", type=Path, required=True, help="a file in API format")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the pictures")
    parser.add_argument("--pictures", type=Path, help="the folder of the pictures that rows name; by default the table's")
    parser.add_argument(
        "--from", type=origin, action="append", default=[], dest="origins", metavar="ORIGIN",
        help="from where rows may name pictures by URL, such as https://example.com; repeatable",
    )
    parser.add_argument("--server", action="append", default=[], type=server, help="the address of a running ComfyUI; repeatable")
    parser.add_argument("--header", type=header, action="append", default=[], help="sent to these: 'Authorization: Bearer 1234'")
    parser.add_argument("--workers", type=int, help="ComfyUIs to start: by default one for each GPU, or one; none beside --server")
    parser.add_argument("--ray", help="of a cluster, the address; by default the one that `ray start` began here, else a new one")
    parser.add_argument("--comfyui", help="the folder with ComfyUI's main.py; by default COMFYUI_PATH or the one that this lies in")
    parser.add_argument("--python", help="its interpreter; by default PYTHON, its .venv, or this one")
    parser.add_argument("--base-directory", help="as ComfyUI takes it")
    parser.add_argument("--comfyui-option", action="append", default=[], help="another one of it: --comfyui-option=--lowvram")
    parser.add_argument("--retries", type=int, default=2, help="how often a row that failed is tried again (2)")
    parser.add_argument("--row-seconds", type=float, default=3600, help="after how long a row has failed (3600)")
    parser.add_argument("--patience", type=float, default=120, help="for how many seconds no server may answer (120)")
    return parser.parse_args(arguments)


def join_ray(address: str | None):
    """A cluster's workers get what they need of this folder; the pictures come with the rows."""
    modules = [str(API.parents[1] / "catalogue"), *(str(API / f"{name}.py") for name in ("comfy_client", "comfy_answers"))]
    shared = {
        "runtime_env": {"py_modules": modules}, "log_to_driver": False, "logging_level": logging.ERROR, "namespace": "catalogue",
    }
    if not address:
        try:
            return ray.init(address="auto", **shared)
        except ConnectionError:
            address = "local"
    own = {"include_dashboard": False, "object_store_memory": 512 * 2**20} if address == "local" else {}
    return ray.init(address=address, **own, **shared)


def workers(options: argparse.Namespace) -> Settings:
    """raises: TableError where Ray has no room for so many"""
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    count = options.workers if options.workers is not None else 0 if options.server else max(gpus, 1)
    room, kind = (gpus, "GPUs") if gpus else (int(there.get("CPU", 0)), "CPUs")
    if count > room:
        raise TableError(f"{count} workers need as many {kind}, and Ray has {room}.")
    if not count and not options.server:
        raise TableError("There is no worker: give --workers or --server.")
    given = os.environ.get("OMP_NUM_THREADS")
    threads = int(given) if given else None if gpus or count == 1 else max(1, (os.cpu_count() or 1) // count)
    servers = [*dict.fromkeys(options.server)]
    start = Start(options.comfyui, options.python, options.base_directory, tuple(options.comfyui_option), threads)
    return Settings(
        [*servers, *[start] * count], 1 if gpus else 0, dict(options.header), options.retries, options.patience,
        options.row_seconds,
    )


def report(rows: list[Row], results: Results) -> int:
    """Writes table and sheet, and says what is there. Returns how many rows have no picture."""
    results.write_table(rows)
    ended = [(row, results.of(row)) for row in rows]
    drawn = {row.name: results.folder / result.files[0] for row, result in ended if result.files and not result.error}
    if drawn:
        from .sheet import contact_sheet  # torch comes with it

        if sheet := contact_sheet(drawn):
            sheet.save(results.folder / SHEET)
    failed = [(row, result) for row, result in ended if result.error and result.tries]
    for row, result in failed[:10]:
        print(f"{row.place}, {row.name}: {printable(result.error, 300)}", file=sys.stderr)
    print(f"{len(drawn)} of {len(rows)} rows are drawn, {len(failed)} failed: see {results.folder / TABLE}.csv")
    return len(rows) - len(drawn)


def catalogue(options: argparse.Namespace) -> int:
    workflow = read_workflow(options.workflow)
    results = Results(options.out)
    try:
        rows = check(read_table(options.table), workflow, Pictures(options.pictures or options.table.parent, options.origins))
        missing = results.missing(rows)
        ended = None
        if missing:
            join_ray(options.ray)
            run = Run(workflow, missing, len(rows), results, workers(options))
            try:
                run()
            except (NoStart, ComfyError) as error:
                ended = str(error)
            except KeyboardInterrupt:
                ended = "Ended before all was drawn. Run it again for the rest."
            finally:
                run.stop()
        left = report(rows, results)
        if ended:
            print(printable(ended), file=sys.stderr)
        return 1 if left else 0
    finally:
        results.close()
        ray.shutdown()


def main(arguments: list[str] | None = None) -> int:
    given = options(arguments)
    try:
        return catalogue(given)
    except (TableError, ValueError, OSError) as error:
        print(printable(str(error), 20_000), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
