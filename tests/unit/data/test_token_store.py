"""Reading back: views, and refusal of what does not belong together."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbcore.data.read import TokenStore
from sbcore.errors import SparseBalanceError


@pytest.fixture
def folder(run, tmp_path):
    run([{"text": "abc"}, {"text": "defg"}])
    return tmp_path / "out"


def test_samples_are_views_of_the_files(folder):
    store = TokenStore(folder)
    tokens, is_target = store.sample(1)
    assert tokens.dtype == np.uint32
    assert is_target.tolist() == [False, True, True, True, True]
    assert not tokens.flags.owndata
    assert not tokens.flags.writeable
    assert np.fromfile(folder / "tokens.bin", np.uint32)[4:].tolist() == tokens.tolist()
    for number in (-1, 2):
        with pytest.raises(IndexError, match=rf"sample_id = {number}: the data set has 2"):
            store.sample(number)


def test_the_digest_follows_the_content(folder, run):
    before = TokenStore(folder).digest
    run([{"text": "abc"}, {"text": "defh"}])
    assert TokenStore(folder).digest != before


def test_broken_files_are_refused_with_the_way_out(folder):
    index = folder / "index.parquet"
    whole = index.read_bytes()

    def refused(pattern: str) -> None:
        with pytest.raises(SparseBalanceError, match=pattern + r".* run the stage prepare\.$"):
            TokenStore(folder)

    (folder / "tokens.bin").write_bytes(b"1234")
    refused(r"tokens.bin: 4 bytes, but index.parquet tells of 9 tokens \(36 bytes\)")
    (folder / "tokens.bin").unlink()
    refused(r"tokens.bin: 0 bytes")
    index.write_bytes(whole[:100])
    refused(r"index.parquet: ")
    pq.write_table(pq.read_table(pa.BufferReader(whole)), index)
    refused(r"index.parquet: format_version = none, not 1")
    index.unlink()
    refused(r"index.parquet: missing")


def test_gaps_and_other_columns_are_refused(folder):
    index = folder / "index.parquet"
    table, metadata = pq.read_table(index), pq.read_metadata(index).metadata

    def write(changed) -> None:
        with pq.ParquetWriter(index, changed.schema) as writer:
            writer.write_table(changed)
            writer.add_key_value_metadata({"format_version": metadata[b"format_version"]})

    write(table.slice(1))
    with pytest.raises(SparseBalanceError, match="samples do not follow each other"):
        TokenStore(folder)
    write(table.drop_columns(["offset"]))
    with pytest.raises(SparseBalanceError, match="columns = "):
        TokenStore(folder)


def test_reading_needs_neither_polars_nor_transformers_nor_torch():
    code = (
        "import sys, sbcore.data.read; "
        "print(sorted({'polars', 'transformers', 'torch', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "[]"
