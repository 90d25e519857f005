"""A run on disk: what was asked, the samples, and records that are appended as they come.

| file | holds |
|---|---|
| `run.json` | what was asked |
| `samples/00000/` | a sample with its units and targets, as `AttributionOutput.load` reads it |
| `records.jsonl` | one line per method and sample |
| `maps/METHOD/00000-00007-CHECKSUM.safetensors` | what the method said of these samples |
| `run.lock` | the number of the process that writes, as long as it does |

Every file and every line has a checksum. What a kill cuts off is computed again; what was changed is told.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from safetensors.torch import load, save
from torch import Tensor

from interpreto.atomic import (
    FolderLock,
    atomic_file,
    check_writable,
    checksum,
    readable_folder,
    remove_temporary_files,
    write_text,
)
from interpreto.attributions.result import AttributionOutput
from interpreto.attributions.serialization import (
    DAMAGE,
    TENSORS,
    check_version,
    load_result,
    read_bytes,
    verify_checksum,
    with_checksum,
)
from interpreto.attributions.validation import check_result, is_count
from interpreto.comparison.config import ComparisonConfig
from interpreto.comparison.fingerprint import digest
from interpreto.comparison.records import Record
from interpreto.errors import SavedFileError

VERSION = 2
ASKED, RECORDS, MAPS, SAMPLES, LOCK = "run.json", "records.jsonl", "maps", "samples", "run.lock"
_PART = re.compile(r"(\d{5,8})-(\d{5,8})-[0-9a-f]{16}")
_LINE = {"method", "sample", "error", "values", "metric_errors", "memory"}
_OF_OUTPUT = {"maps", "maps_checksum", "granularity", "n_evaluations", "info", "elements"}


@dataclass(frozen=True)
class RunStore:
    """The files of a run."""

    path: Path

    @property
    def begun(self) -> bool:
        """Whether there is a run in it."""
        return (self.path / ASKED).exists()

    def check(self) -> None:
        """Refuse a folder that cannot take a run, before anything is computed for it.

        Raises:
            SavedFileError: if it holds something else, or cannot be written.
        """
        check_writable(self.path)
        if not self.begun and self.path.exists() and any(not _is_ours(path) for path in self.path.iterdir()):
            raise SavedFileError(f"{str(self.path)!r} holds other files than those of a comparison: give a new folder.")

    def locked(self) -> FolderLock:
        """The right to write into it.

        Raises:
            SavedFileError: where it is entered while another process, or another call of this one, has it.
        """
        return FolderLock(
            self.path / LOCK,
            lambda holder: (
                f"Process {holder} is writing the comparison in {str(self.path)!r}: wait for its end, or give a new "
                "folder."
            ),
        )

    def begin(self, asked: ComparisonConfig) -> None:
        """Say what is asked.

        Raises:
            SavedFileError: if the folder holds something else.
        """
        self.check()
        self.path.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(self.path)
        write_text(self.path / ASKED, with_checksum({"version": VERSION, **asked.to_json()}, indent=1))

    def asked(self) -> ComparisonConfig:
        """What was asked.

        Raises:
            SavedFileError: if it cannot be read.
        """
        place = readable_folder(self.path) / ASKED
        try:
            text = read_bytes(place).decode()
            check_version(text, VERSION, repr(str(self.path)))
            return ComparisonConfig.from_json(verify_checksum(text))
        except FileNotFoundError as error:
            raise SavedFileError(f"{str(self.path)!r} is no comparison: {ASKED} is missing.") from error
        except DAMAGE as error:
            if isinstance(error, SavedFileError):
                raise
            raise SavedFileError(
                f"{ASKED} in {str(self.path)!r} is damaged ({error}): delete the folder to start afresh."
            ) from error

    def put_sample(self, number: int, sample: AttributionOutput) -> None:
        """Keep a sample."""
        sample.save(self.path / SAMPLES / f"{number:05}")

    def read(self, asked: ComparisonConfig) -> tuple[dict[int, AttributionOutput], list[Record]]:
        """The samples, by number, and the records that are there; of two of the same method and sample the later one.

        A last line that was cut off when a run was killed is left out: what it held is computed again.

        Args:
            asked: What the run was asked, which bounds what can be in it.

        Raises:
            SavedFileError: if a sample, a line or a file of numbers is damaged.
        """
        # A run that is under way writes a sample before its records: what is read first has its samples.
        folder = RunStore(readable_folder(self.path))
        path = folder.path / RECORDS
        text = path.read_bytes().decode(errors="replace") if path.exists() else ""
        samples = folder._samples(asked.count)
        return samples, folder._records(text, samples, asked)

    def _samples(self, count: int) -> dict[int, AttributionOutput]:
        found = {}
        for folder in sorted((self.path / SAMPLES).glob("[0-9]*")):
            if not folder.name.isdigit() or int(folder.name) >= count:
                raise SavedFileError(f"{str(folder)!r} is no sample of a run of {count}: it does not belong there.")
            found[int(folder.name)] = load_result(folder, AttributionOutput)
        return found

    def append(self, records: Sequence[Record], samples: Sequence[AttributionOutput | None]) -> None:
        """Add records of one method; the numbers first, so that a line is there only if they are."""
        tensors, lines = {}, []
        for record in records:
            line, numbers = _line(record, samples[record.sample])
            tensors |= {f"{record.sample}.{name}": value for name, value in numbers.items()}
            lines.append(line)
        if tensors:
            content = save(tensors)
            mark = checksum(content)
            # Another content has another name: lines that were written before stay true.
            part = f"{records[0].sample:05}-{records[-1].sample:05}-{mark[:16]}"
            with atomic_file(self._maps(records[0].method, part)) as beside:
                beside.write_bytes(content)
            for line, record in zip(lines, records, strict=True):
                if record.output is not None:
                    line |= {"maps": part, "maps_checksum": mark}
        with (self.path / RECORDS).open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    # A line that was cut off when an earlier run was killed makes room.
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write("".join(f"{with_checksum(line)}\n" for line in lines).encode())

    def _records(self, text: str, samples: dict[int, AttributionOutput], asked: ComparisonConfig) -> list[Record]:
        found: dict[tuple[str, int], Record] = {}
        opened: dict[Path, dict[str, Tensor]] = {}
        for number, line in enumerate(text.split("\n")[:-1], start=1):
            try:
                record = self._record(verify_checksum(line), samples, opened, asked)
            except DAMAGE as error:
                raise SavedFileError(
                    f"Line {number} of {RECORDS} in {str(self.path)!r} is damaged, or the numbers it belongs to are "
                    f"({error}): delete the line, and what it held is computed again."
                ) from error
            found[record.method, record.sample] = record
        return list(found.values())

    def _record(
        self,
        words: dict[str, Any],
        samples: dict[int, AttributionOutput],
        opened: dict[Path, dict[str, Tensor]],
        asked: ComparisonConfig,
    ) -> Record:
        method, number, output = words["method"], words["sample"], None
        _check_line(words, asked)
        if "maps" in words:
            stored = self._stored(words, opened)
            numbers: dict[str, Any] = {name: stored.get(f"{number}.{name}") for name in TENSORS}
            own: dict[str, Any] = {name: words[name] for name in ("granularity", "n_evaluations", "info")}
            if numbers["attributions"] is None or numbers["scores"] is None:
                raise KeyError("attributions")
            elements = words.get("elements", stored.get(f"{number}.elements"))
            if elements is None:
                elements = samples[number].elements
            output = replace(samples[number], elements=elements, **numbers, **own)
            check_result(output)
        values = {metric: _number(value) for metric, value in words["values"].items()}
        return Record(
            method, number, output, words["error"], values, dict(words["metric_errors"]), _number(words["memory"])
        )

    def _stored(self, words: dict[str, Any], opened: dict[Path, dict[str, Tensor]]) -> dict[str, Tensor]:
        """The numbers that a line belongs to."""
        part = _PART.fullmatch(words["maps"])
        if part is None or not int(part[1]) <= words["sample"] <= int(part[2]):
            raise ValueError(f"maps is {words['maps']!r}")
        place = self._maps(words["method"], words["maps"])
        if place not in opened:
            opened[place] = load(read_bytes(place, words["maps_checksum"]))
        return opened[place]

    def _maps(self, method: str, part: str) -> Path:
        name = quote(method, safe="").replace(".", "%2E")
        # File systems take names of up to 255 letters.
        name = name if len(name) <= 100 else f"{name[:90]}-{digest(method):08x}"
        return self.path / MAPS / name / f"{part}.safetensors"


def _is_ours(path: Path) -> bool:
    """Whether a file may be what a run left that was killed at its very beginning."""
    return path.name == LOCK or (path.name.startswith(f".{ASKED}.") and path.name.endswith(".part"))


def _check_line(words: dict[str, Any], asked: ComparisonConfig) -> None:
    """Refuse a line that is none of this run's.

    Raises:
        ValueError: if it is none.
    """
    names = set(words)
    if not names >= _LINE or not names <= _LINE | _OF_OUTPUT:
        raise ValueError("it has other fields than a record")
    if words["method"] not in asked.methods:
        raise ValueError(f"the run has no method {words['method']!r}")
    if not is_count(words["sample"], asked.count - 1):
        raise ValueError(f"the run has no sample {words['sample']!r}")
    if not isinstance(words["error"], str):
        raise ValueError("error is no text")
    for name, kinds in (("values", int | float | str | None), ("metric_errors", str)):
        entries = words[name]
        if not isinstance(entries, dict) or not set(entries) <= set(asked.metrics):
            raise ValueError(f"{name} are of other metrics than the run's")
        if not all(isinstance(value, kinds) for value in entries.values()):
            raise ValueError(f"{name} are damaged")


def _line(record: Record, sample: AttributionOutput | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A record as JSON, and the numbers that go elsewhere."""
    words: dict[str, Any] = {
        "method": record.method,
        "sample": record.sample,
        "error": record.error,
        "values": {metric: _plain(value) for metric, value in record.values.items()},
        "metric_errors": record.metric_errors,
        "memory": _plain(record.memory),
    }
    output = record.output
    if output is None or sample is None:
        return words, {}
    words |= {"granularity": output.granularity, "n_evaluations": output.n_evaluations, "info": output.info}
    numbers = {name: getattr(output, name) for name in TENSORS}
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
