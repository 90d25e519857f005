"""A run on disk: what was asked, the samples, and records that are appended as they come.

| file | holds |
|---|---|
| `run.json` | what was asked |
| `samples/00000/` | a sample with its units and targets, as `AttributionOutput.load` reads it |
| `records.jsonl` | one line per method and sample |
| `maps/METHOD/00000-00007.safetensors` | what the method said of these samples |
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from interpreto.attributions.comparison.asked import Asked
from interpreto.attributions.comparison.fingerprint import digest
from interpreto.attributions.comparison.records import Record
from interpreto.attributions.result import AttributionOutput
from interpreto.errors import SavedFileError

VERSION = 1
ASKED, RECORDS, MAPS, SAMPLES = "run.json", "records.jsonl", "maps", "samples"
_NUMBERS = ("attributions", "scores", "standard_errors", "completeness_gap", "segments")


@dataclass(frozen=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def begun(self) -> bool:
        """Whether there is a run in it."""
        return (self.path / ASKED).exists()

    def begin(self, asked: Asked) -> None:
        """Say what is asked.

        Raises:
            SavedFileError: if the folder holds something else.
        """
        if not self.begun and self.path.exists() and any(self.path.iterdir()):
            raise SavedFileError(f"{str(self.path)!r} holds other files than those of a comparison: give a new folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / ASKED, json.dumps({"version": VERSION, **asked.as_json()}, indent=1, ensure_ascii=False))

    def asked(self) -> Asked:
        """What was asked.

        Raises:
            SavedFileError: if it cannot be read.
        """
        try:
            found = json.loads((self.path / ASKED).read_text(encoding="utf-8"))
            if found["version"] > VERSION:
                raise SavedFileError(f"{str(self.path)!r} was written by a newer interpreto: upgrade to read it.")
        except FileNotFoundError as error:
            raise SavedFileError(f"{str(self.path)!r} is no comparison: {ASKED} is missing.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise SavedFileError(
                f"{ASKED} in {str(self.path)!r} is damaged ({error}): delete the folder to start afresh."
            ) from error
        return Asked.of_json(found, str(self.path))

    def put_sample(self, number: int, sample: AttributionOutput) -> None:
        """Keep a sample."""
        sample.save(self.path / SAMPLES / f"{number:05}")

    def read(self) -> tuple[dict[int, AttributionOutput], list[Record]]:
        """The samples, by number, and the records that are there; of two of the same method and sample the later one.

        A last line that was cut off when a run was killed is left out: what it held is computed again.

        Raises:
            SavedFileError: if a sample, a line or a file of numbers is damaged.
        """
        # A run that is under way writes a sample before its records: what is read first has its samples.
        path = self.path / RECORDS
        text = path.read_bytes().decode(errors="replace") if path.exists() else ""
        samples = self._samples()
        return samples, self._records(text, samples)

    def _samples(self) -> dict[int, AttributionOutput]:
        folders = sorted((self.path / SAMPLES).glob("[0-9]*"))
        return {int(folder.name): AttributionOutput.load(folder) for folder in folders}

    def append(self, records: Sequence[Record], samples: Sequence[AttributionOutput | None]) -> None:
        """Add records of one method; the numbers first, so that a line is there only if they are."""
        tensors, lines = {}, []
        part = f"{records[0].sample:05}-{records[-1].sample:05}"
        for record in records:
            line, numbers = _line(record, samples[record.sample])
            if record.output is not None:
                line["maps"] = part
            tensors |= {f"{record.sample}.{name}": value for name, value in numbers.items()}
            lines.append(json.dumps(line, ensure_ascii=False))
        if tensors:
            place = self._maps(records[0].method, part)
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = place.with_suffix(".part")
            save_file(tensors, beside)
            beside.replace(place)
        with (self.path / RECORDS).open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    # A line that was cut off when an earlier run was killed makes room.
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write("".join(f"{line}\n" for line in lines).encode())

    def _records(self, text: str, samples: dict[int, AttributionOutput]) -> list[Record]:
        found: dict[tuple[str, int], Record] = {}
        opened: dict[Path, dict[str, Tensor]] = {}
        for number, line in enumerate(text.split("\n")[:-1], start=1):
            try:
                words = json.loads(line)
                record = self._record(words, samples, opened)
            except (ValueError, KeyError, TypeError, SafetensorError, OSError) as error:
                raise SavedFileError(
                    f"Line {number} of {RECORDS} in {str(self.path)!r} is damaged, or the numbers it belongs to are "
                    f"({error}): delete the line, and what it held is computed again."
                ) from error
            found[record.method, record.sample] = record
        return list(found.values())

    def _record(
        self, words: dict[str, Any], samples: dict[int, AttributionOutput], opened: dict[Path, dict[str, Tensor]]
    ) -> Record:
        method, number, output = words["method"], words["sample"], None
        if "maps" in words:
            place = self._maps(method, words["maps"])
            if place not in opened:
                opened[place] = load_file(place)
            stored = opened[place]
            numbers: dict[str, Any] = {name: stored.get(f"{number}.{name}") for name in _NUMBERS}
            own: dict[str, Any] = {name: words[name] for name in ("granularity", "n_rows", "info")}
            if numbers["attributions"] is None or numbers["scores"] is None:
                raise KeyError("attributions")
            elements = words.get("elements", stored.get(f"{number}.elements"))
            if elements is None:
                elements = samples[number].elements
            output = replace(samples[number], elements=elements, **numbers, **own)
        values = {metric: _number(value) for metric, value in words["values"].items()}
        return Record(method, number, output, words["error"], values, dict(words["troubles"]), _number(words["memory"]))

    def _maps(self, method: str, part: str) -> Path:
        name = quote(method, safe="")
        # File systems take names of up to 255 letters.
        name = name if len(name) <= 100 else f"{name[:90]}-{digest(method):08x}"
        return self.path / MAPS / name / f"{part}.safetensors"


def _line(record: Record, sample: AttributionOutput | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A record as JSON, and the numbers that go elsewhere."""
    words: dict[str, Any] = {
        "method": record.method,
        "sample": record.sample,
        "error": record.error,
        "values": {metric: _plain(value) for metric, value in record.values.items()},
        "troubles": record.troubles,
        "memory": _plain(record.memory),
    }
    output = record.output
    if output is None or sample is None:
        return words, {}
    words |= {"granularity": output.granularity, "n_rows": output.n_rows, "info": output.info}
    numbers = {name: getattr(output, name) for name in _NUMBERS}
    found = {name: value.contiguous() for name, value in numbers.items() if value is not None}
    if isinstance(output.elements, Tensor):
        own = not (isinstance(sample.elements, Tensor) and output.elements.equal(sample.elements))
        return words, {**found, "elements": output.elements.contiguous()} if own else found
    if output.elements != sample.elements:
        words["elements"] = output.elements
    return words, found


def _plain(value: float) -> float | str | None:
    """Numbers as JSON knows them: no NaN, infinity by name."""
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else value


def _number(value: float | int | str | None) -> float:
    return math.nan if value is None else float(value)


def write_text(path: Path, text: str) -> None:
    """Write a file that is there as a whole or not at all."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
