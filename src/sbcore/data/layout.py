"""The files of a prepared data set, readable with numpy and pyarrow alone.

- ``tokens.bin``: uint32, the ids of all samples one after the other;
- ``targets.bin``: one byte per token, 1 where the token is to be predicted (carries the loss);
- ``index.parquet``: one row per sample, columns as in `INDEX_COLUMNS`; its key-value metadata
  holds ``format_version``, ``num_tokens``, ``tokens_sha256``, ``targets_sha256``;
- ``summary.json``: counts, what was left out and why, and which tokenizer it was.

Sample i of the index has the tokens [offset, offset + num_tokens); samples follow each other
without gaps. ``source_line`` counts from 1.
"""

TOKENS, TARGETS, INDEX, SUMMARY = "tokens.bin", "targets.bin", "index.parquet", "summary.json"

FORMAT_VERSION = "1"

INDEX_COLUMNS = {
    "sample_id": "int64",
    "offset": "int64",
    "num_tokens": "int32",
    "num_target_tokens": "int32",
    "source_file": "dictionary<values=string, indices=int32, ordered=0>",
    "source_line": "int64",
}
