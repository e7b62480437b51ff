"""Boosted trees: what an artefact holds is its one ONNX form, and nothing else reaches onnxruntime."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from shared.models.ensemble import Ensemble, read_onnx, write_onnx
from shared.models.loading import load_model
from shared.models.manifest import Artefact, Manifest, Trees
from shared.models.probe import Limits, probe
from shared.models.safety import ModelRefused
from tests.unit.models.makers import FINGERPRINT, NAMES, artefact, ensemble, rebound, samples, trees

Floats = np.ndarray[Any, np.dtype[np.float64]]


def _by_hand(of: Ensemble, row: list[float]) -> list[float]:
    """The sums of one row, walked in plain Python."""
    sums: list[float] = of.baseline.tolist()
    for root in of.roots.tolist():
        at, is_leaf = root, 0
        while not is_leaf:
            low = row[of.features[at]] <= of.splits[at]
            at, is_leaf = (of.low[at], of.low_leaf[at]) if low else (of.high[at], of.high_leaf[at])
        sums[of.targets[at]] += of.values[at]
    return sums


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_trees_score_what_a_walk_by_hand_gives(classes: int) -> None:
    of = ensemble(1 if classes == 2 else classes)
    loaded = load_model(trees(classes), FINGERPRINT, NAMES, classes=classes)
    matrix = np.vstack([samples(50), np.repeat(of.splits[:, None], 3, axis=1)])  # also exactly on each split
    sums = np.array([_by_hand(of, row) for row in matrix.tolist()])
    raised = np.exp(sums - sums.max(axis=1, keepdims=True))
    expected = 1 / (1 + np.exp(-sums[:, 0])) if classes == 2 else raised / raised.sum(axis=1, keepdims=True)
    import torch

    np.testing.assert_allclose(loaded.network(torch.from_numpy(matrix)).numpy(), expected, atol=1e-14)


def test_the_form_comes_back_as_the_same_trees_and_bytes() -> None:
    architecture = Trees(inputs=3, trees=2, nodes=3)
    data = write_onnx(ensemble(), architecture)
    assert write_onnx(read_onnx(data, architecture), architecture) == data
    onnx.checker.check_model(onnx.load_model_from_string(data))


@pytest.mark.parametrize("classes", [2, 4])
def test_a_trial_process_takes_them(classes: int) -> None:
    assert 0 < probe(trees(classes), FINGERPRINT, Limits()).row_seconds < 0.1


def _edited(edit: Callable[[Any], object]) -> Artefact:
    base = trees()
    model = onnx.load_model_from_string(base.files["model.onnx"])
    edit(model)
    return rebound(base, {"model.onnx": model.SerializeToString()})


def _attribute(model: Any, name: str) -> Any:
    return next(each for each in model.graph.node[0].attribute if each.name == name)


def _outside(model: Any) -> None:
    tensor = _attribute(model, "leaf_weights").t
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


def _half(model: Any) -> None:
    tensor = _attribute(model, "nodes_splits").t
    tensor.raw_data = tensor.raw_data[:-3]


FILES: dict[str, tuple[Callable[[], Artefact], str]] = {
    "pickle": (lambda: rebound(trees(), {"model.onnx": b"\x80\x04\x95junk"}), "format.pickle"),
    "zip": (lambda: rebound(trees(), {"model.onnx": b"PK\x03\x04junk"}), "format.zip"),
    "noise": (lambda: rebound(trees(), {"model.onnx": b"\xff" * 100}), "format.onnx"),
    "empty": (lambda: rebound(trees(), {"model.onnx": b""}), "format.onnx"),
    "safetensors": (
        lambda: rebound(trees(), {"model.onnx": artefact().files["weights.safetensors"]}),
        "format.onnx",
    ),
    "unknown_field": (
        lambda: rebound(trees(), {"model.onnx": trees().files["model.onnx"] + b"\xaa\x06\x02hi"}),
        "format.onnx",
    ),
    "too_long": (
        lambda: rebound(trees(), {"model.onnx": trees().files["model.onnx"] + bytes(1 << 20)}),
        "format.onnx",
    ),
    "external_data": (lambda: _edited(_outside), "format.onnx"),
    "function": (lambda: _edited(lambda m: m.functions.add(name="f", domain="x")), "format.onnx"),
    "metadata": (lambda: _edited(lambda m: m.metadata_props.add(key="a", value="b")), "format.onnx"),
    "other_domain": (lambda: _edited(lambda m: m.opset_import.add(domain="evil", version=1)), "format.onnx"),
    "custom_op": (lambda: _edited(lambda m: setattr(m.graph.node[1], "domain", "evil")), "format.onnx"),
    "other_op": (lambda: _edited(lambda m: setattr(m.graph.node[2], "op_type", "Loop")), "format.onnx"),
    "more_nodes": (lambda: _edited(lambda m: m.graph.node.add(op_type="Identity")), "format.onnx"),
    "no_nodes": (lambda: _edited(lambda m: m.graph.ClearField("node")), "format.onnx"),
    "more_outputs": (lambda: _edited(lambda m: m.graph.output.add(name="y")), "format.onnx"),
    "more_attributes": (lambda: _edited(lambda m: m.graph.node[0].attribute.add(name="z")), "format.onnx"),
    "subgraph": (
        lambda: _edited(lambda m: _attribute(m, "n_targets").g.node.add(op_type="If")),
        "format.onnx",
    ),
    "other_mode": (
        lambda: _edited(lambda m: setattr(_attribute(m, "nodes_modes").t, "raw_data", b"\5\5\5")),
        "format.onnx",
    ),
    "half_a_number": (lambda: _edited(_half), "format.onnx"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_not_the_form_is_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, reason = FILES[case]
    forged = make()
    forged.verify()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # an import of it would be `runtime.missing`
    with pytest.raises(ModelRefused) as refused:
        load_model(forged, FINGERPRINT, NAMES)
    assert refused.value.reason == reason


def _with(**changes: Any) -> Artefact:
    architecture = Trees(inputs=3, trees=2, nodes=3)
    return rebound(trees(), {"model.onnx": write_onnx(replace(ensemble(), **changes), architecture)})


BAD_TREES: dict[str, tuple[dict[str, Any], str]] = {
    "nan_split": ({"splits": np.array([0.0, np.nan, 1.0])}, "weights.nonfinite"),
    "infinite_leaf": ({"values": np.array([0.0, 1, 2, 3, np.inf])}, "weights.nonfinite"),
    "nan_baseline": ({"baseline": np.array([np.nan])}, "weights.nonfinite"),
    "feature_too_high": ({"features": np.array([0, 1, 3])}, "weights.shape"),
    "feature_below": ({"features": np.array([0, -1, 2])}, "weights.shape"),
    "target_too_high": ({"targets": np.array([0, 0, 0, 0, 1])}, "weights.shape"),
    "leaf_flag": ({"low_leaf": np.array([1, 1, 2])}, "weights.shape"),
    "circle": ({"high": np.array([0, 2, 4])}, "weights.shape"),
    "child_in_another_tree": ({"high": np.array([2, 2, 4]), "roots": np.array([0, 1])}, "weights.shape"),
    "leaf_twice": ({"low": np.array([0, 1, 1])}, "weights.shape"),
    "leaf_beyond": ({"low": np.array([0, 1, 9])}, "weights.shape"),
    "root_beyond": ({"roots": np.array([0, 3])}, "weights.shape"),
    "roots_descend": ({"roots": np.array([2, 0])}, "weights.shape"),
    "too_few_leaves": ({"values": np.zeros(4), "targets": np.zeros(4, np.int64)}, "weights.shape"),
    "two_baselines": ({"baseline": np.zeros(2)}, "weights.shape"),
}


@pytest.mark.parametrize("case", BAD_TREES)
def test_trees_that_are_none_are_refused(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changes, reason = BAD_TREES[case]
    forged = _with(**changes)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelRefused) as refused:
        load_model(forged, FINGERPRINT, NAMES)
    assert refused.value.reason == reason


def test_other_leaves_are_a_golden_mismatch() -> None:
    with pytest.raises(ModelRefused, match=r"golden\.mismatch"):
        load_model(_with(values=np.arange(5.0)), FINGERPRINT, NAMES)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_host_without_the_runtime_refuses_trees_and_loads_networks(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trees()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelRefused, match=r"runtime\.missing"):
        load_model(made, FINGERPRINT, NAMES)
    load_model(artefact(), FINGERPRINT, NAMES)


def test_weights_end_as_their_kind_says() -> None:
    base = trees()
    renamed = {"weights.safetensors": base.files["model.onnx"], "golden.safetensors": b""}
    document = base.manifest.model_dump()
    document |= {
        "weights": "weights.safetensors",
        "files": {n: {"sha256": "0" * 64, "size": 1} for n in renamed},
    }
    with pytest.raises(ModelRefused, match=r"manifest\.invalid"):
        Manifest.parse(Manifest.model_validate(document).canonical())
