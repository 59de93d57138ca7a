"""The length profile against plain numpy, and its files."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sbcore.config.data import LengthProfileConfig
from sbcore.config.stages import ProfileLengthsStage
from sbcore.errors import SparseBalanceError
from sbcore.lengths.profile import profile_lengths


def config(num_buckets: int = 8) -> ProfileLengthsStage:
    return ProfileLengthsStage(lengths=LengthProfileConfig(num_buckets=num_buckets))


@pytest.fixture
def profile(tmp_path):
    """Profiles these lengths; every fourth token is a target."""

    def profile_(lengths, num_buckets: int = 8):
        index = tmp_path / "index.parquet"
        columns = {
            "num_tokens": pa.array(lengths, pa.int32()),
            "num_target_tokens": pa.array([n // 4 for n in lengths], pa.int32()),
        }
        pq.write_table(pa.table(columns), index)
        return profile_lengths(config(num_buckets), index=index, out=tmp_path / "out")

    return profile_


@pytest.fixture(scope="module")
def lengths() -> list[int]:
    rng = np.random.default_rng(0)
    return np.clip(rng.lognormal(6, 1.2, 5000), 8, 30_000).astype(int).tolist()


def test_the_figures_are_those_of_numpy(profile, lengths):
    found = profile(lengths)
    plain = np.array(lengths)
    assert (found["count"], found["num_tokens"]) == (5000, plain.sum())
    assert found["mean"] == pytest.approx(plain.mean())
    assert found["sd"] == pytest.approx(plain.std())
    assert found["cv"] == pytest.approx(plain.std() / plain.mean())
    assert (found["min"], found["max"]) == (plain.min(), plain.max())
    for percent in (10, 25, 50, 75, 90, 95, 99):
        assert found[f"p{percent}"] == pytest.approx(np.percentile(plain, percent))
    assert found["target_share"] == pytest.approx((plain // 4).sum() / plain.sum())
    for bound, share in found["share_below"].items():
        assert share == pytest.approx((plain < int(bound)).mean())
    for bound, share in found["token_share_below"].items():
        assert share == pytest.approx(plain[plain < int(bound)].sum() / plain.sum())
    for at, samples, tokens in found["tail"]:
        assert samples == pytest.approx((plain >= at).mean())
        assert tokens == pytest.approx(plain[plain >= at].sum() / plain.sum())


def test_buckets_hold_every_sample_once(profile, lengths):
    buckets = profile(lengths)["buckets"]
    plain = np.array(lengths)
    assert buckets[0]["low"] == plain.min()
    assert buckets[-1]["high"] == plain.max() + 1
    for bucket, after in zip(buckets, [*buckets[1:], None], strict=True):
        inside = plain[(plain >= bucket["low"]) & (plain < bucket["high"])]
        assert bucket["count"] == len(inside)
        assert bucket["token_share"] == pytest.approx(inside.sum() / plain.sum())
        assert bucket["target_share"] == pytest.approx((inside // 4).sum() / (plain // 4).sum())
        assert after is None or bucket["high"] == after["low"]


@pytest.mark.parametrize("lengths", [[50], [50, 50, 50], [5, 4000], list(range(1, 6))])
def test_few_or_equal_lengths_have_fewer_buckets_and_still_a_picture(profile, tmp_path, lengths):
    found = profile(lengths, num_buckets=12)
    assert sum(bucket["count"] for bucket in found["buckets"]) == len(lengths)
    assert (tmp_path / "out" / "lengths.png").stat().st_size > 5000
    assert json.loads((tmp_path / "out" / "lengths.json").read_text())["count"] == len(lengths)


def test_an_index_that_is_none_is_named(tmp_path):
    missing, broken = tmp_path / "missing.parquet", tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 no parquet at all PAR1")
    with pytest.raises(SparseBalanceError, match=r"missing.parquet: missing\. run the stage prep"):
        profile_lengths(config(), index=missing, out=tmp_path)
    with pytest.raises(
        SparseBalanceError, match=r"broken.parquet: .*\. run the stage prepare"
    ) as e:
        profile_lengths(config(), index=broken, out=tmp_path)
    assert "\n" not in str(e.value)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"length": [1]}), other)
    with pytest.raises(SparseBalanceError, match=r"other.parquet: .*num_tokens"):
        profile_lengths(config(), index=other, out=tmp_path)


def test_the_last_bound_is_above_all_lengths(profile):
    assert profile([1024, 100])["share_below"] == {"1024": 0.5, "2048": 1.0}
