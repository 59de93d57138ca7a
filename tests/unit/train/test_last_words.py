"""What is said when training ends early; signals and ranks stand in test_endings.py."""

import threading
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from sbcore.train import last_words as last_words_module
from sbcore.train.complaint import RANK0_SPEAKS_SECONDS, AlreadySaid
from sbcore.train.last_words import _Ending, in_words, last_words
from sbcore.train.lock import lock

GLOO = RuntimeError(
    "[/src/gloo/gloo/transport/tcp/pair.cc:537] Read error [::1]:9: Connection reset by peer. This "
    "is typically caused by\na remote worker"
)
LOST = "another rank is gone, torchrun says which: Read error [::1]:9: Connection reset by peer"


def run_in(folder, *, rank=0, writing=None, first="step-4"):
    """Returns a run of 8 steps whose last checkpoint is ``first``, and of step 6 maybe in work.

    That one is finished when its future is, or, where it is "over", while the line is written.
    """
    good, ended, future = [first], [], Future()
    future.add_done_callback(lambda _: good.append("step-6"))

    def last_good(num_steps):
        assert num_steps == 8
        newest = good[-1]
        if writing == "over" and not future.done():
            future.set_result(None)
        return newest

    def being_written():
        if writing == "in work":
            threading.Timer(0.1, future.set_result, (None,)).start()
        return future if writing and not future.done() else None

    return SimpleNamespace(
        files=SimpleNamespace(rank=rank, folder=folder),
        checkpoints=SimpleNamespace(last_good=last_good, being_written=being_written),
        tracker=SimpleNamespace(end=lambda status, error: ended.append((status, error))),
        trainer=SimpleNamespace(
            stage=SimpleNamespace(variant="sab"),
            inputs=SimpleNamespace(plan=SimpleNamespace(num_steps=8)),
        ),
        ended=ended,
    )


def line(reason, step):
    return (
        f"train sab: {reason}; last good checkpoint: step-{step}. "
        "the same command with --resume goes on from there.\n"
    )


def test_a_lost_rank_is_one_line_at_once(tmp_path, capsys):
    with pytest.raises(AlreadySaid) as caught, last_words(run_in(tmp_path)):
        raise GLOO
    assert capsys.readouterr().err == line(LOST, 4) == f"{caught.value}\n"


def test_a_file_that_cannot_be_written_is_one_line_at_once(tmp_path, capsys):
    with pytest.raises(AlreadySaid), last_words(run_in(tmp_path)):
        raise OSError(28, "no space")
    assert capsys.readouterr().err == line(f"{tmp_path}: No space left on device", 4)


def test_where_there_is_no_checkpoint_none_is_offered(tmp_path, capsys):
    _Ending(run_in(tmp_path, first="none")).by_error("why")
    assert capsys.readouterr().err == "train sab: why; last good checkpoint: none.\n"


def test_signals_are_answered_for_the_block(tmp_path, capsys, monkeypatch):
    answers = []

    @contextmanager
    def answering(answer):
        answers.append(answer)
        yield

    monkeypatch.setattr(last_words_module, "answering_signals", answering)
    with last_words(run_in(tmp_path)):
        answers[0]("SIGINT")
    assert capsys.readouterr().err == line("ended by SIGINT", 4)


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="shapes"), last_words(run_in(tmp_path)):
        raise RuntimeError("shapes do not match")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("writing", ["in work", "over"])
def test_a_signal_names_what_was_written_meanwhile_too(writing, tmp_path, capsys):
    run = run_in(tmp_path, writing=writing)
    _Ending(run).by_signal("SIGTERM")
    said = line("ended by SIGTERM", 4) + line("what was being written is over", 6)
    assert capsys.readouterr().err == said
    assert run.ended == [("KILLED", "SIGTERM")]


def test_after_an_error_a_signal_says_nothing_more(tmp_path, capsys):
    ending = _Ending(run_in(tmp_path, writing="in work"))
    ending.by_error("why")
    ending.by_signal("SIGTERM")
    assert capsys.readouterr().err == line("why", 4)


def test_another_rank_speaks_where_the_first_was_killed(tmp_path, capsys):
    held = lock(tmp_path)
    _Ending(run_in(tmp_path, rank=3)).by_signal("SIGTERM")
    assert not capsys.readouterr().err
    held.close()
    for rank in (3, 5):
        _Ending(run_in(tmp_path, rank=rank)).by_signal("SIGTERM")
    assert capsys.readouterr().err == line("ended by SIGTERM", 4)


def test_a_killed_rank_may_let_go_of_its_lock_after_its_connections(tmp_path, capsys):
    held = lock(tmp_path)
    freed = threading.Timer(0.2, held.close)
    freed.start()
    _Ending(run_in(tmp_path, rank=1)).by_error("why")
    freed.join()
    assert capsys.readouterr().err == line("why", 4)


def test_a_signal_has_its_say_while_an_error_waits_for_the_first_rank(tmp_path, capsys):
    held, ending = lock(tmp_path), _Ending(run_in(tmp_path, rank=1))
    erring = threading.Thread(target=ending.by_error, args=("why",))
    erring.start()
    held.close()
    ending.by_signal("SIGTERM")
    erring.join()
    said = capsys.readouterr().err
    assert said in (line("why", 4), line("ended by SIGTERM", 4))


def test_where_the_first_rank_lives_and_is_silent_another_says_it_late(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(last_words_module, "RANK0_SPEAKS_SECONDS", 0.1)
    with lock(tmp_path):
        _Ending(run_in(tmp_path, rank=1)).by_error("why")
    assert capsys.readouterr().err == "rank 1: " + line("why", 4)


def test_the_first_rank_is_waited_for_as_long_as_other_complaints_wait(tmp_path, monkeypatch):
    now = [0.0]
    clock = SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds)
    )
    monkeypatch.setattr(last_words_module, "time", clock)
    with lock(tmp_path):
        _Ending(run_in(tmp_path, rank=1)).by_error("why")
    assert now[0] == pytest.approx(RANK0_SPEAKS_SECONDS, abs=0.1)


def test_after_a_signal_an_error_says_nothing_more_even_where_no_file_can_say_so(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(last_words_module, "RANK0_SPEAKS_SECONDS", 0.1)
    ending = _Ending(run_in(tmp_path / "gone"))
    ending.by_signal("SIGTERM")
    ending.by_error("why")
    assert capsys.readouterr().err == line("ended by SIGTERM", 4)


def test_while_the_first_rank_ends_after_its_words_no_other_speaks(tmp_path, capsys):
    with lock(tmp_path):
        for rank in (0, 1):
            _Ending(run_in(tmp_path, rank=rank)).by_error("why")
    assert capsys.readouterr().err == line("why", 4)


def test_of_many_that_lost_the_first_rank_one_speaks(tmp_path, capsys):
    lock(tmp_path).close()  # as the system does when a process is killed
    for rank in (3, 1, 2):
        _Ending(run_in(tmp_path, rank=rank)).by_error("why")
    assert capsys.readouterr().err == line("why", 4)


def test_when_the_first_rank_has_spoken_no_other_does(tmp_path, capsys):
    held = lock(tmp_path)
    _Ending(run_in(tmp_path)).by_signal("SIGTERM")
    held.close()  # it is through before the signal reaches the next
    _Ending(run_in(tmp_path, rank=1)).by_signal("SIGTERM")
    assert capsys.readouterr().err == line("ended by SIGTERM", 4)


def test_errors_in_words():
    out = Path("out")
    assert in_words(OSError(28, "no space"), out) == "out: No space left on device"
    assert in_words(OSError("\nno room for it\nat all"), out) == "out: no room for it"
    assert in_words(PermissionError(13, "denied", "file"), out) == "file: Permission denied"
    assert in_words(dist.DistBackendError("NCCL error\nmore"), out).endswith("which: NCCL error")
    assert in_words(RuntimeError(""), out) is None
