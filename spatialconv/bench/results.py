"""Results as JSON: one head that says where and how, rows appended one by one, resumed, compared with an older run."""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

FORMAT = 1
# What must agree for two runs' rows to stand in one file; what else differs is in a row's key.
SAME = ("machine", "versions", "build", "isa", "precision")
SAME_SETTINGS = ("seed", "device")


def head(settings: dict, roofline: dict | None = None) -> dict:
    """Versions, machine, settings and load: what a figure means nothing without."""
    from .. import dispatch
    from ..info import build_facts, cpu_model, gpu_facts

    device = settings.get("device", "cpu")
    on_gpu = {"gpu": gpu_facts()} if device == "cuda" else {}
    return {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "spatialconv": _version()},
        "build": build_facts(),
        "isa": dispatch.current_context(device).isa,
        "precision": _conv_precision(device),
        "load": list(os.getloadavg()),
        "settings": settings,
        "roofline": roofline,
        **on_gpu,
    }


def _conv_precision(device: str) -> str:
    library = torch.backends.cudnn if device == "cuda" else torch.backends.mkldnn
    return library.conv.fp32_precision


def _version() -> str:
    from .. import __version__

    return __version__


def row_key(problem: str, request: str, peers: Iterable[str], settings: dict, transposed: bool = False) -> str:
    """What makes a measurement the same one as another: the problem, who ran it against whom, and how."""
    how = " ".join(f"{name}={settings[name]}" for name in ("threads", "cache", "clock"))
    how += " prepacked" if settings.get("prepacked") else ""
    return " | ".join([f"{problem}{' transposed' if transposed else ''}", request, "+".join(sorted(peers)), how])


class Store:
    """A result file that is whole at every moment: each row is written to a new file that then takes its place."""

    def __init__(self, path: Path, head: dict, resume: bool = False) -> None:
        self.path, self.head = path, json.loads(json.dumps(_finite(head)))
        self.rows: dict[str, dict] = {}
        self._texts: dict[str, str] = {}
        if resume and path.is_file():
            old = load(path)
            differing = _differing(old["head"], self.head)
            if differing:
                raise ValueError(f"cannot resume {path}: another {' and '.join(differing)}")
            self.rows = {row["key"]: row for row in old["rows"]}
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write()

    def done(self, key: str) -> bool:
        """Whether the file has a measurement of that key; what failed is tried again."""
        return self.rows.get(key, {}).get("status") == "ok"

    def add(self, row: dict) -> None:
        self.rows[row["key"]] = row
        self._texts.pop(row["key"], None)
        self.write()

    def write(self) -> None:
        # A row is put into words once: with thousands of them that would take longer than measuring the next.
        for key, row in self.rows.items():
            if key not in self._texts:
                self._texts[key] = json.dumps(_finite(row), indent=1, allow_nan=False)
        head = json.dumps(_finite(self.head), indent=1, allow_nan=False)
        scratch = self.path.with_name(self.path.name + ".part")
        scratch.write_text(
            f'{{"head": {head},\n"rows": [\n' + ",\n".join(self._texts[key] for key in self.rows) + "\n]}\n"
        )
        os.replace(scratch, self.path)


def _differing(old: dict, new: dict) -> list[str]:
    """What keeps two runs' rows from standing in one file."""
    settings = [old.get("settings", {}), new.get("settings", {})]
    found = [name for name in SAME if old.get(name) != new.get(name)]
    return found + [name for name in SAME_SETTINGS if settings[0].get(name) != settings[1].get(name)]


def _finite(value):
    """The value with infinities and NaN as null, which JSON has no words for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value


def load(path: Path) -> dict:
    """The content of a result file; ValueError where it is none."""
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not a result file: {error}") from None
    head, rows = (content.get(name) for name in ("head", "rows")) if isinstance(content, dict) else (None, None)
    right = isinstance(head, dict) and head.get("format") == FORMAT and isinstance(rows, list)
    if not right or not all(isinstance(row, dict) and "key" in row for row in rows):
        raise ValueError(f"{path}: expected a result file of format {FORMAT}")
    return content


@dataclass(frozen=True)
class Change:
    """A row in two runs; ``verdict`` is 'slower' or 'faster' only where the bounds do not overlap, else 'same'."""

    key: str
    peer: str
    old: dict
    new: dict
    verdict: str


def compare(old_rows: Iterable[dict], new_rows: Iterable[dict]) -> list[Change]:
    """Each ratio that both runs have. Ratios and not times: the peer ran beside us, so a slower machine cancels."""
    before = {row["key"]: row for row in old_rows}
    changes = []
    for row in new_rows:
        for peer, new in row.get("peers", {}).items():
            old = before.get(row["key"], {}).get("peers", {}).get(peer)
            if not old or old.get("ratio") is None or new.get("ratio") is None:
                continue
            verdict = "slower" if new["high"] < old["low"] else "faster" if new["low"] > old["high"] else "same"
            changes.append(Change(row["key"], peer, old, new, verdict))
    return changes


def geometric_means(rows: Iterable[dict], peer: str) -> dict[tuple[str, str, str, str], tuple[float, int]]:
    """Per (backend, layout, pass, class), also class 'all', of one dtype: mean of the ratio, and of how many layers."""
    logs: dict[tuple[str, str, str, str], list[float]] = {}
    for row in rows:
        value = row.get("peers", {}).get(peer, {}).get("ratio")
        if row["status"] == "ok" and value:
            for kind in (row["class"], "all"):
                logs.setdefault((row["backend"], row["layout"], row["pass"], kind), []).append(math.log(value))
    return {key: (math.exp(sum(values) / len(values)), len(values)) for key, values in logs.items()}


def network_ratios(rows: Iterable[dict], peer: str) -> dict[tuple[str, str, str, str], dict]:
    """Per (suite, backend, layout, pass): the layers' times summed with multiplicity, the peer's over ours.

    Only layers that both sides have count; ``missing`` says how many of the suite's do not.
    """
    sums: dict[tuple[str, str, str, str], dict] = {}
    for row in rows:
        for suite, count in row["suites"].items():
            total = sums.setdefault(
                (suite, row["backend"], row["layout"], row["pass"]),
                {"ours": 0.0, "peer": 0.0, "layers": 0, "missing": 0},
            )
            found = row.get("peers", {}).get(peer, {})
            if row["status"] != "ok" or found.get("ratio") is None:
                total["missing"] += count
                continue
            total["ours"] += count * row["ours"]["median"]
            total["peer"] += count * found["median"]
            total["layers"] += count
    for total in sums.values():
        total["ratio"] = total["peer"] / total["ours"] if total["ours"] else None
    return sums
