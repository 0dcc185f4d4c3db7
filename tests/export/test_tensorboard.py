"""The event files, read back by an own reader of the bytes and by TensorBoard itself where it is installed."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest
from export_names import FORMULA

from unvanish import session
from unvanish.export.tables import tables
from unvanish.export.tensorboard import crc32c, write_events
from unvanish.schema.run import Run


def naive_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_checksum_is_the_one_of_the_rfc() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283 == naive_crc(b"123456789")


def records(path: Path) -> list[bytes]:
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body = data[12 : 12 + length]
        for part, at in ((data[:8], 8), (body, 12 + length)):
            crc = naive_crc(part)
            masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
            assert struct.unpack("<I", data[at : at + 4]) == (masked,)
        found.append(body)
        data = data[16 + length :]
    return found


def fields(message: bytes) -> list[tuple[int, Any]]:
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            value: Any = varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            value = message[at : at + size]
            at += size
        found.append((key >> 3, value))
    return found


@pytest.fixture(scope="module")
def events(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_events(run, tables(run, session.diagnose(run)), tmp_path_factory.mktemp("tb"))


def test_every_loss_is_in_the_file(events: Path, run: Run) -> None:
    first, *rest = records(events)
    assert (3, b"brain.Event:2") in fields(first)
    model, losses = run.models[0], {}
    for record in rest:
        event = dict(fields(record))
        for _, value in fields(event[5]):
            told = dict(fields(value))
            if told[1].decode() == f"{model.info.name}/loss":
                losses[event[2]] = struct.unpack("<f", told[2])[0]
    assert sorted(losses) == list(range(40))
    assert [losses[i] for i in range(39)] == pytest.approx(list(model.losses)[:39], rel=1e-6)
    assert math.isnan(losses[39])


def test_exported_again_it_is_the_same_one_file(events: Path, run: Run) -> None:
    before = events.read_bytes()
    again = write_events(run, tables(run, session.diagnose(run)), events.parent)
    assert list(events.parent.iterdir()) == [again]
    assert again.read_bytes() == before


def test_tensorboard_reads_it(events: Path, run: Run) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulators.EventAccumulator(str(events.parent), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    model = run.models[0]
    tags = read.Tags()["scalars"]
    assert {f"{model.info.name}/loss", f"{model.info.name}/signal/{FORMULA}"} <= set(tags)
    loss = read.Scalars(f"{model.info.name}/loss")
    assert [e.step for e in loss] == list(range(40))
    assert [e.value for e in loss[:39]] == pytest.approx(list(model.losses)[:39], rel=1e-6)
    texts = [tag for tag in read.Tags()["tensors"] if "/findings/" in tag]
    assert texts
    assert read.Tensors(texts[0])[0].tensor_proto.string_val[0]
    assert read.SummaryMetadata(texts[0]).plugin_data.plugin_name == "text"
