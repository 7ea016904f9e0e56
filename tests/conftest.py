"""Shared fixtures: where the golden arrays are, and a hypothesis profile without chance."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=int(os.environ.get("TAL_POSTPROC_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("steady")

HERE = Path(__file__).parent


def golden_folder() -> Path:
    """Outputs of published code: the folder TAL_POSTPROC_GOLDEN, or shared/golden beside the project."""
    return Path(os.environ.get("TAL_POSTPROC_GOLDEN", HERE.parents[1] / "shared" / "golden"))


def thumos_folder() -> Path:
    """Real THUMOS14 annotations: the folder TAL_POSTPROC_THUMOS, or shared/data/thumos14 beside the project."""
    return Path(os.environ.get("TAL_POSTPROC_THUMOS", HERE.parents[1] / "shared" / "data" / "thumos14"))


@pytest.fixture(scope="session")
def golden():
    """``golden("nms")`` loads the arrays of nms.npz, the project's own small ones at least, or skips."""
    loaded: dict[str, dict[str, np.ndarray]] = {}

    def load(name: str) -> dict[str, np.ndarray]:
        path = golden_folder() / f"{name}.npz"
        if not path.exists():
            path = HERE / "golden" / f"{name}.npz"
        if not path.exists():
            pytest.skip(f"golden arrays of published code are not here ({path.name}; set TAL_POSTPROC_GOLDEN)")
        if name not in loaded:
            with np.load(path, allow_pickle=False) as arrays:
                loaded[name] = {key: arrays[key] for key in arrays.files}
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def thumos() -> Path:
    """The folder of real THUMOS14 annotations, or a skip."""
    folder = thumos_folder()
    if not (folder / "segments.npy").exists():
        pytest.skip("THUMOS14 annotations are not here (set TAL_POSTPROC_THUMOS)")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
