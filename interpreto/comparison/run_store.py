"""A run on disk: its configuration, samples, and records that are appended as they are computed.

| file | content |
|---|---|
| `run.json` | the configuration |
| `samples/00000/` | a sample with its units and targets, as `AttributionOutput.load` reads it |
| `records.jsonl` | one line per method and sample |
| `maps/METHOD/00000-00007-CHECKSUM.safetensors` | the method's attributions of these samples |
| `run.lock` | the id of the process that is writing |

Every file and every line has a checksum. A line that was cut off when the process was killed is computed again; any
other change is an error.
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
from interpreto.attributions.validation import check_result, is_count, target_from_json, target_to_json
from interpreto.comparison.config import ComparisonConfig
from interpreto.comparison.fingerprint import digest
from interpreto.comparison.records import Record
from interpreto.errors import SavedFileError
from interpreto.type_guards import are_all

VERSION = 2
CONFIG_FILE, RECORDS, MAPS, SAMPLES, LOCK = "run.json", "records.jsonl", "maps", "samples", "run.lock"
_PART = re.compile(r"(\d{5,8})-(\d{5,8})-[0-9a-f]{16}")
_RECORD_FIELDS = {"method", "sample", "error", "values", "metric_errors", "memory"}
_OUTPUT_FIELDS = {
    "maps",
    "maps_checksum",
    "granularity",
    "n_evaluations",
    "info",
    "elements",
    "targets",
    "target_names",
}


@dataclass(frozen=True)
class RunStore:
    """The files of a run."""

    path: Path

    @property
    def begun(self) -> bool:
        """Whether the folder contains a run."""
        return (self.path / CONFIG_FILE).exists()

    def check(self) -> None:
        """Check that a run can be written to the folder, before anything is computed for it.

        Raises:
            SavedFileError: if the folder has other content, or cannot be written.
        """
        check_writable(self.path)
        if not self.begun and self.path.exists() and any(not _is_run_file(path) for path in self.path.iterdir()):
            raise SavedFileError(f"{str(self.path)!r} contains files that are not a comparison: pass a new folder.")

    def locked(self) -> FolderLock:
        """A lock for writing, to be used as a context manager.

        Raises:
            SavedFileError: on entry, if another process, or another call in this one, has the lock.
        """
        return FolderLock(
            self.path / LOCK,
            lambda holder: (
                f"Process {holder} is writing the comparison in {str(self.path)!r}: wait until it ends, or pass a new "
                "folder."
            ),
        )

    def begin(self, config: ComparisonConfig) -> None:
        """Write the configuration.

        Raises:
            SavedFileError: if the folder has other content.
        """
        self.check()
        self.path.mkdir(parents=True, exist_ok=True)
        remove_temporary_files(self.path)
        write_text(self.path / CONFIG_FILE, with_checksum({"version": VERSION, **config.to_json()}, indent=1))

    def config(self) -> ComparisonConfig:
        """Read the configuration.

        Raises:
            SavedFileError: if it cannot be read.
        """
        path = readable_folder(self.path) / CONFIG_FILE
        try:
            text = read_bytes(path).decode()
            # The version is checked first: other formats may have other checksums.
            check_version(text, VERSION, repr(str(self.path)))
            return ComparisonConfig.from_json(verify_checksum(text))
        except FileNotFoundError as error:
            raise SavedFileError(f"{str(self.path)!r} is not a comparison: {CONFIG_FILE} is missing.") from error
        except DAMAGE as error:
            # A `SavedFileError`, such as that of another version, has its message already.
            if isinstance(error, SavedFileError):
                raise
            raise SavedFileError(
                f"{CONFIG_FILE} in {str(self.path)!r} is damaged ({error}): delete the folder to start again."
            ) from error

    def put_sample(self, number: int, sample: AttributionOutput) -> None:
        """Write a sample."""
        sample.save(self.path / SAMPLES / f"{number:05}")

    def read(self, config: ComparisonConfig) -> tuple[dict[int, AttributionOutput], list[Record]]:
        """Read the samples, by index, and the records; the later of two records of the same method and sample counts.

        A last line without a line break was cut off when the process was killed, and is ignored.

        Args:
            config: The configuration, against which records are checked.

        Raises:
            SavedFileError: if a sample, a line or a file of attributions is damaged.
        """
        # Records are read before samples: another process may be writing, a sample always before its records.
        folder = RunStore(readable_folder(self.path))
        path = folder.path / RECORDS
        text = path.read_bytes().decode(errors="replace") if path.exists() else ""
        samples = folder._read_samples(config.count)
        return samples, folder._read_records(text, samples, config)

    def _read_samples(self, count: int) -> dict[int, AttributionOutput]:
        samples = {}
        for folder in sorted((self.path / SAMPLES).glob("[0-9]*")):
            if not folder.name.isdigit() or int(folder.name) >= count:
                raise SavedFileError(f"{str(folder)!r} is not a sample of this run, which has {count} samples.")
            samples[int(folder.name)] = load_result(folder, AttributionOutput)
        return samples

    def append(self, records: Sequence[Record], samples: Sequence[AttributionOutput | None]) -> None:
        """Append records of one method. Tensors are written first, so that a line never refers to a missing file."""
        tensors, lines = {}, []
        for record in records:
            line, record_tensors = _record_to_json(record, samples[record.sample])
            tensors |= {f"{record.sample}.{name}": value for name, value in record_tensors.items()}
            lines.append(line)
        if tensors:
            content = save(tensors)
            content_hash = checksum(content)
            # The name contains the checksum: a repeated batch does not overwrite a file that earlier lines refer to.
            part = f"{records[0].sample:05}-{records[-1].sample:05}-{content_hash[:16]}"
            with atomic_file(self._maps_path(records[0].method, part)) as temporary:
                temporary.write_bytes(content)
            for line, record in zip(lines, records, strict=True):
                if record.output is not None:
                    line |= {"maps": part, "maps_checksum": content_hash}
        # Appended in place and not atomically, because rewriting the file for each batch would take quadratic time.
        with (self.path / RECORDS).open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    # Remove a line that was cut off when an earlier run was killed.
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write("".join(f"{with_checksum(line)}\n" for line in lines).encode())

    def _read_records(self, text: str, samples: dict[int, AttributionOutput], config: ComparisonConfig) -> list[Record]:
        records: dict[tuple[str, int], Record] = {}
        opened: dict[Path, dict[str, Tensor]] = {}
        for number, line in enumerate(text.split("\n")[:-1], start=1):
            try:
                record = self._record_from_json(verify_checksum(line), samples, opened, config)
            except DAMAGE as error:
                raise SavedFileError(
                    f"Line {number} of {RECORDS} in {str(self.path)!r} is damaged, or the numbers it refers to are "
                    f"({error}): delete the line, and its record is computed again."
                ) from error
            records[record.method, record.sample] = record
        return list(records.values())

    def _record_from_json(
        self,
        content: dict[str, Any],
        samples: dict[int, AttributionOutput],
        opened: dict[Path, dict[str, Tensor]],
        config: ComparisonConfig,
    ) -> Record:
        method, number, output = content["method"], content["sample"], None
        _check_line(content, config)
        if "maps" in content:
            stored = self._load_tensors(content, opened)
            tensors: dict[str, Any] = {name: stored.get(f"{number}.{name}") for name in TENSORS}
            fields: dict[str, Any] = {name: content[name] for name in ("granularity", "n_evaluations", "info")}
            if tensors["attributions"] is None or tensors["scores"] is None:
                raise KeyError("attributions")
            # Units are stored only for methods with units of their own: text as JSON, boxes as a tensor.
            elements = content.get("elements", stored.get(f"{number}.elements"))
            if elements is None:
                elements = samples[number].elements
            if "targets" in content:
                fields["targets"] = tuple(target_from_json(target) for target in content["targets"])
                fields["target_names"] = tuple(content["target_names"])
            # The rest, such as the input, is that of the sample.
            output = replace(samples[number], elements=elements, **tensors, **fields)
            check_result(output)
        values = {metric: _number_from_json(value) for metric, value in content["values"].items()}
        return Record(
            method,
            number,
            output,
            content["error"],
            values,
            dict(content["metric_errors"]),
            _number_from_json(content["memory"]),
        )

    def _load_tensors(self, content: dict[str, Any], opened: dict[Path, dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of the file that a line refers to."""
        # The name comes from a file and becomes part of a path: anything but the expected form is refused.
        part = _PART.fullmatch(content["maps"])
        if part is None or not int(part[1]) <= content["sample"] <= int(part[2]):
            raise ValueError(f"maps is {content['maps']!r}")
        path = self._maps_path(content["method"], content["maps"])
        if path not in opened:
            opened[path] = load(read_bytes(path, content["maps_checksum"]))
        return opened[path]

    def _maps_path(self, method: str, part: str) -> Path:
        # `quote` does not escape dots: a method with the name ".." would leave the folder.
        name = quote(method, safe="").replace(".", "%2E")
        # File systems limit names to 255 bytes.
        name = name if len(name) <= 100 else f"{name[:90]}-{digest(method):08x}"
        return self.path / MAPS / name / f"{part}.safetensors"


def _is_run_file(path: Path) -> bool:
    """Whether a file may stem from a run that was killed before its configuration was written."""
    return path.name == LOCK or (path.name.startswith(f".{CONFIG_FILE}.") and path.name.endswith(".part"))


def _check_line(content: dict[str, object], config: ComparisonConfig) -> None:
    """Check that a line is a record of this run.

    Raises:
        ValueError: if it is not.
    """
    names = set(content)
    if not names >= _RECORD_FIELDS or not names <= _RECORD_FIELDS | _OUTPUT_FIELDS:
        raise ValueError("it does not have the fields of a record")
    if content["method"] not in config.methods:
        raise ValueError(f"the run has no method {content['method']!r}")
    if not is_count(content["sample"], config.count - 1):
        raise ValueError(f"the run has no sample {content['sample']!r}")
    if not isinstance(content["error"], str):
        raise ValueError("error is not a text")
    for name, kinds in (("values", int | float | str | None), ("metric_errors", str)):
        entries = content[name]
        if not isinstance(entries, dict) or not set(entries) <= set(config.metrics):
            raise ValueError(f"{name} has other metrics than the run")
        if not are_all(kinds, entries.values()):
            raise ValueError(f"{name} is damaged")


def _record_to_json(record: Record, sample: AttributionOutput | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A record as JSON, and its tensors, which are stored in a file of their own."""
    content: dict[str, Any] = {
        "method": record.method,
        "sample": record.sample,
        "error": record.error,
        "values": {metric: _number_to_json(value) for metric, value in record.values.items()},
        "metric_errors": record.metric_errors,
        "memory": _number_to_json(record.memory),
    }
    output = record.output
    if output is None or sample is None:
        return content, {}
    content |= {"granularity": output.granularity, "n_evaluations": output.n_evaluations, "info": output.info}
    fields = {name: getattr(output, name) for name in TENSORS}
    # safetensors refuses tensors that are not contiguous.
    tensors = {name: value.contiguous() for name, value in fields.items() if value is not None}
    if output.target_names != sample.target_names:
        # A method with units of its own groups generated tokens into targets of its own.
        content["targets"] = [target_to_json(target) for target in output.targets]
        content["target_names"] = output.target_names
    if output.is_image:
        # The outputs of one sample are all of its image.
        differs = not output.require_boxes().equal(sample.require_boxes())
        return content, {**tensors, "elements": output.require_boxes().contiguous()} if differs else tensors
    if output.elements != sample.elements:
        content["elements"] = output.elements
    return content, tensors


def _number_to_json(value: float) -> float | str | None:
    """A number as JSON, which has neither NaN (null here) nor infinity (a string here)."""
    if math.isnan(value):
        return None
    return str(value) if math.isinf(value) else value


def _number_from_json(value: float | int | str | None) -> float:
    return math.nan if value is None else float(value)
