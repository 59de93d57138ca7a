import numpy as np
import pytest

from sbcore.tune.watch import CurveWatch


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_curves_that_are_no_numbers_are_named_once_by_layer(value, capsys):
    watch, curves = CurveWatch("sab_dst"), np.ones((4, 3, 5))
    watch.look(6, curves, measured=True)
    assert capsys.readouterr().err == ""
    curves[1, 2, 0] = curves[3, 0, 4] = value
    watch.look(7, curves, measured=True)
    line = capsys.readouterr().err
    assert line.startswith(
        "warning: train sab_dst: step 7: coverage of layers 1, 3 is not a number"
    )
    assert line.count("\n") == 1
    watch.look(8, curves, measured=True)
    assert capsys.readouterr().err == ""


def test_a_step_that_measured_nothing_is_no_news(capsys):
    CurveWatch("lbb").look(0, np.full((2, 3, 5), np.nan), measured=False)
    assert capsys.readouterr().err == ""


def test_long_lists_of_layers_are_cut(capsys):
    CurveWatch("dst").look(0, np.full((24, 1, 2), np.nan), measured=True)
    assert "0, 1, 2, 3, 4, 5, 6, 7 and 16 more" in capsys.readouterr().err
