import json

import pytest

from sbcore.errors import SparseBalanceError
from sbcore.train.inputs import _check_vocabulary


def folders(tmp_path, *, has, needs):
    model, data = tmp_path / "model", tmp_path / "data"
    for folder, name, size in ((model, "config.json", has), (data, "summary.json", needs)):
        folder.mkdir()
        (folder / name).write_text(json.dumps({"vocab_size": size}))
    return model, data


def test_a_tokenizer_larger_than_the_models_vocabulary_is_refused(tmp_path):
    model, data = folders(tmp_path, has=100, needs=101)
    with pytest.raises(SparseBalanceError, match=r"vocab_size = 100: the data's tokenizer has 101"):
        _check_vocabulary(model, data)


def test_spare_rows_are_no_mistake(tmp_path):
    _check_vocabulary(*folders(tmp_path, has=152, needs=100))
