"""Engines: the environment in which the workers of Dask compute."""

from __future__ import annotations

import os

import pytest

from microtome.atlas.engine import executor


def test_workers_of_dask_keep_their_memory():
    pytest.importorskip("distributed")
    with executor("dask", 1) as pool:
        assert pool.submit(os.environ.get, "MALLOC_TRIM_THRESHOLD_").result() is None
        assert pool.submit(os.environ.get, "OMP_NUM_THREADS").result() == "1"
