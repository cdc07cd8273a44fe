"""The CUDA sources compile for a GPU, and what becomes of a kernel is seen rightly."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from cudasim import instances, nvrtc

from schuss.backends.cuda.sources import UNITS, source


@pytest.fixture(autouse=True, scope="module")
def compiler():
    if why := nvrtc.missing():
        if os.environ.get("SCHUSS_REQUIRE_CUDASIM"):
            pytest.fail(f"SCHUSS_REQUIRE_CUDASIM is set, but kernels cannot be compiled: {why}")
        pytest.skip(why)


@pytest.mark.parametrize("unit", UNITS)
def test_one_instance_of_each_kernel(unit):
    """All instances, on all architectures, are those of .ci/cuda.py."""
    first = {name.split("<")[0]: name for name in reversed(instances.expressions(unit))}
    kernels = nvrtc.compiled(source(unit), list(first.values()), "sm_90")
    assert source(unit).count("__global__") == len(kernels)
    for name, kernel in kernels.items():
        assert 0 < kernel.registers <= 255, name
        assert not (kernel.shares and kernel.read_only_loads), name


PROBES = """
#line 1 "probes.cu"
extern "C" __global__ void plain(const float* in, float* out) { out[threadIdx.x] = in[0] + in[1]; }
extern "C" __global__ void wide(const float4* in, float4* out) { out[0] = in[threadIdx.x]; }
extern "C" __global__ void read_only(const float* in, float* out) { out[0] = __ldg(in) + 1; }
extern "C" __global__ void shares(const float* x, float* out) { *out = __ldcg(x) + __ldg(x + 1); }
extern "C" __global__ void __launch_bounds__(1024, 2) spills(const float* in, float* out) {
  float numbers[64];
  for (int k = 0; k < 64; ++k) numbers[k] = in[k * threadIdx.x];
  __syncthreads();
  for (int k = 0; k < 64; ++k) out[k * threadIdx.x] = numbers[k] * numbers[63 - k];
}
"""


@pytest.fixture(scope="module")
def probes():
    names = ("plain", "wide", "read_only", "shares", "spills")
    return nvrtc.compiled(PROBES, names, "sm_90")


def test_what_became_of_a_kernel(probes):
    def having(seen):
        return {name for name, kernel in probes.items() if seen(kernel)}

    assert having(lambda kernel: kernel.wide_loads) == {"wide"}
    assert having(lambda kernel: kernel.read_only_loads) == {"read_only", "shares"}
    assert having(lambda kernel: kernel.shares) == {"shares"}
    assert having(lambda kernel: kernel.local) == {"spills"}
    assert having(lambda kernel: kernel.spilled) == {"spills"}
    assert having(lambda kernel: kernel.registers > 20) == {"spills"}


def test_a_source_that_does_not_compile():
    with pytest.raises(nvrtc.CompileError, match=r'wrong\.cu\(3\): error: identifier "y" is'):
        nvrtc.compiled('#line 3 "wrong.cu"\n__global__ void f(int* x) { *x = y; }', ["f"], "sm_90")


def test_budgets():
    """More registers, more local memory, fewer wide loads and unknown kernels are faults."""
    path = Path(__file__).parents[1] / ".ci" / "cuda.py"
    spec = importlib.util.spec_from_file_location("budgets_of_cuda", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    budgets = {"sm_90 rows": {"f<float>": [32, 0, 0, 4], "g<float>": [8, 0, 0, 0]}}
    better = {"sm_90 rows": {"f<float>": [31, 0, 0, 5], "g<float>": [8, 0, 0, 0]}}
    assert module.compare(better, budgets) == []
    worse = {"sm_90 rows": {"f<float>": [33, 8, 2, 3], "h<float>": [8, 0, 0, 0]}}
    assert module.compare(worse, budgets) == [
        "sm_90 rows: g<float> is not compiled any more",
        "sm_90 rows: f<float>: registers 33, the budget is 32",
        "sm_90 rows: f<float>: spilled 8, the budget is 0",
        "sm_90 rows: f<float>: local 2, the budget is 0",
        "sm_90 rows: f<float>: wide_loads 3, the budget is 4",
        "sm_90 rows: h<float> has no budget",
    ]
