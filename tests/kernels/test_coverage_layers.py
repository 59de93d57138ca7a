"""Curves and budgets of all layers of a pack: in one launch a layer what the definition says."""

from itertools import product

import numpy as np
import pytest
import torch

from sbcore.attention.call import AttentionCall
from sbcore.tune.layer_clamp import (
    ClampLimits,
    DeviceMeasure,
    HostMeasure,
    LayerTables,
    clamp_range,
    row_stride,
)
from sbkernels import coverage_curve
from sbkernels.testing import make_inputs

LENGTHS = (300, 0, 65, 640)
RUNGS, BASE_RUNG, NUM_LAYERS = (1, 2, 3, 4, 6, 10, 40), 2, 3
LIMITS = ClampLimits(p=0.1, floor=2, cap=7)
TARGETS = [[1, 5, 30, 2], [9, 1, 1, 8], [3, 3, 3, 3]]


def tables_of(device, *, limits=LIMITS) -> LayerTables:
    """Returns tables with every place to be written made unlike what is written."""
    return LayerTables(
        targets=torch.tensor(TARGETS, dtype=torch.int32, device=device),
        budgets=torch.full((NUM_LAYERS, len(LENGTHS)), -7, dtype=torch.int32, device=device),
        curves=torch.full((NUM_LAYERS, len(LENGTHS), len(RUNGS)), -7.0, device=device),
        ladder=torch.tensor(RUNGS, dtype=torch.int32, device=device),
        rungs=RUNGS,
        base_rung=BASE_RUNG,
        limits=limits,
    )


def layers_of(device, *, head_dim=16, dtype=torch.float32):
    """Returns the inputs of every layer, one pack each."""
    return [
        make_inputs(
            LENGTHS,
            num_heads=4,
            num_kv_heads=2,
            head_dim=head_dim,
            family=("correlated", "iid")[layer % 2],
            seed=layer,
            dtype=dtype,
            device=device,
        )
        for layer in range(NUM_LAYERS)
    ]


def measured(make, layers, tables) -> LayerTables:
    call = AttentionCall(layers[0].cu_seqlens, LENGTHS, 64, "triton", budgets=None)
    measure = make(tables, call)
    for layer, inputs in enumerate(layers):
        measure.measure(layer, inputs.q, inputs.k)
    return tables


def on_device(layers, tables) -> LayerTables:
    first = layers[0]
    return measured(
        lambda tables, call: DeviceMeasure(tables, first.q, first.k, call), layers, tables
    )


def has_tokens(values):
    """Returns the columns of sequences with tokens; nothing is written for the others."""
    return values[:, [0, 2, 3]]


@pytest.mark.parametrize("head_dim", [16, 24])
def test_every_layer_has_the_curve_of_the_public_function_bit_for_bit(head_dim, device):
    layers = layers_of(device, head_dim=head_dim)
    tables = on_device(layers, tables_of(device))
    for curves, inputs in zip(tables.curves, layers, strict=True):
        sizes = {"block_size": 64, "max_seqlen": 640, "row_stride": row_stride(640)}
        here = (inputs.q, inputs.k, inputs.cu_seqlens)
        alone, reference = (
            coverage_curve(*here, ladder=RUNGS, backend=backend, **sizes)
            for backend in ("triton", "reference")
        )
        assert torch.equal(has_tokens(curves[None]), has_tokens(alone[None]))
        torch.testing.assert_close(
            has_tokens(curves[None]), has_tokens(reference[None]), atol=2e-6, rtol=0
        )


def test_budgets_are_those_that_the_host_makes_of_these_curves(device):
    tables = on_device(layers_of(device), tables_of(device))
    carry = np.zeros(len(LENGTHS), dtype=int)
    for layer, sequence in product(range(NUM_LAYERS), (0, 2, 3)):
        curve = tables.curves[layer, sequence].tolist()
        low, high = clamp_range(curve, RUNGS, base_rung=BASE_RUNG, limits=LIMITS)
        wanted = TARGETS[layer][sequence] - carry[sequence]
        used = min(max(wanted, low), high)
        assert tables.budgets[layer, sequence] == used, (layer, sequence)
        carry[sequence] = used - wanted
    assert (has_tokens(tables.budgets) != has_tokens(tables.targets)).any(), "nothing was clamped"


def test_host_and_device_decide_alike(device):
    """Given the host measures by the same kernels."""
    layers = layers_of(device)
    there, here = on_device(layers, tables_of(device)), tables_of(device)
    measured(HostMeasure, layers, here)
    assert torch.equal(has_tokens(there.curves), has_tokens(here.curves))
    assert torch.equal(has_tokens(there.budgets), has_tokens(here.budgets))


def test_sequences_without_tokens_keep_what_they_had(device):
    tables = on_device(layers_of(device), tables_of(device))
    assert (tables.curves[:, 1] == -7).all()
    assert (tables.budgets[:, 1] == -7).all()


def test_without_limits_no_budget_is_written(device):
    layers = layers_of(device)
    free, bound = (on_device(layers, tables_of(device, limits=x)) for x in (None, LIMITS))
    assert torch.equal(free.curves, bound.curves)
    assert (free.budgets == -7).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_curve_that_is_no_number_is_one_and_gives_k0(value, device):
    layers = layers_of(device)
    for inputs in layers:
        inputs.q[300 + 65 :] *= value
    tables = on_device(layers, tables_of(device))
    assert not tables.curves[:, 3].isfinite().any()
    assert tables.curves[:, [0, 2]].isfinite().all()
    assert (tables.budgets[:, 3] == RUNGS[BASE_RUNG]).all()
