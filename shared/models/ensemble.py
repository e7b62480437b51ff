"""Boosted trees as plain arrays, and the one ONNX form that they have.

The form is `TreeEnsemble` (ai.onnx.ml 5, all in float64), `Add` of the baseline, then `Sigmoid` or `Softmax`.
A file that somebody else wrote is read into arrays, the arrays are checked, and the form is written anew: a
file that is not that form to the last field is refused, and what onnxruntime gets are our own bytes. External
data, other operators, functions and hidden fields have no place to stand in.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from shared.models.manifest import Trees
from shared.models.safety import ModelRefused, sniff

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
INPUT, OUTPUT = "features", "probabilities"
IR_VERSION, OPSET, ML_OPSET = 10, 18, 5
# onnxruntime's code for `value <= split`: the first branch.
BRANCH_LEQ, SUM, NO_TRANSFORM = 0, 1, 0
_INTS = {
    "tree_roots": "roots",
    "nodes_featureids": "features",
    "nodes_truenodeids": "low",
    "nodes_trueleafs": "low_leaf",
    "nodes_falsenodeids": "high",
    "nodes_falseleafs": "high_leaf",
    "leaf_targetids": "targets",
}
_DOUBLES = {"nodes_splits": "splits", "leaf_weights": "values"}


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trees over float64 features: `x[features] <= splits` goes `low`, else `high`.

    Arrays [nodes]: splits, features, low, high (a node, or a leaf where low_leaf or high_leaf is 1). Arrays
    [leaves]: values, and targets, the output that a value is added to. roots [trees]; baseline [outputs].
    """

    splits: Floats
    features: Ints
    low: Ints
    low_leaf: Ints
    high: Ints
    high_leaf: Ints
    values: Floats
    targets: Ints
    roots: Ints
    baseline: Floats

    def check(self, architecture: Trees) -> None:
        """ModelRefused `weights.shape` or `weights.nonfinite` unless these are proper trees of this size."""
        self._check_sizes(architecture)
        if not all(np.isfinite(each).all() for each in (self.splits, self.values, self.baseline)):
            raise ModelRefused("weights.nonfinite", "a split, a leaf or the baseline is NaN or infinite")
        _within("nodes_featureids", self.features, architecture.inputs)
        _within("leaf_targetids", self.targets, architecture.outputs)
        _within("nodes_trueleafs", self.low_leaf, 2)
        _within("nodes_falseleafs", self.high_leaf, 2)
        self._check_links()

    def _check_sizes(self, architecture: Trees) -> None:
        nodes, trees = architecture.nodes, architecture.trees
        sizes = dict.fromkeys(("splits", "features", "low", "low_leaf", "high", "high_leaf"), nodes)
        sizes |= {"values": nodes + trees, "targets": nodes + trees}
        sizes |= {"roots": trees, "baseline": architecture.outputs}
        for field in fields(self):
            shape = getattr(self, field.name).shape
            if shape != (sizes[field.name],):
                raise ModelRefused("weights.shape", f"{field.name} is {shape}, expected {sizes[field.name]}")

    def _check_links(self) -> None:
        """Each tree is a run of nodes, a child stands behind its parent, and each is somebody's child once."""
        nodes = np.arange(len(self.splits))
        children = np.concatenate([self.low, self.high])
        leaf = np.concatenate([self.low_leaf, self.high_leaf]) == 1
        parents = np.tile(nodes, 2)[~leaf]
        inner = children[~leaf]
        if self.roots[0] != 0 or (np.diff(self.roots) <= 0).any() or self.roots[-1] >= len(nodes):
            raise ModelRefused("weights.shape", "tree_roots must ascend from 0")
        if not np.array_equal(np.sort(children[leaf]), np.arange(len(self.values))):
            raise ModelRefused("weights.shape", "a leaf hangs on no branch, or on two")
        if not np.array_equal(np.sort(inner), np.setdiff1d(nodes, self.roots)):
            raise ModelRefused("weights.shape", "a node hangs on no branch, or on two")
        tree = np.searchsorted(self.roots, nodes, side="right")
        if (inner <= parents).any() or (tree[inner] != tree[parents]).any():
            raise ModelRefused("weights.shape", "a node stands before its parent or in another tree")


def _within(name: str, values: Ints, limit: int) -> None:
    if len(values) and (values.min() < 0 or values.max() >= limit):
        raise ModelRefused("weights.shape", f"{name} must stay in 0..{limit - 1}")


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ModelRefused("runtime.missing", "this host has no onnx; install it to serve trees") from error
    return onnx


def write_onnx(ensemble: Ensemble, architecture: Trees) -> bytes:
    """The one ONNX form of these trees."""
    return bytes(_build(ensemble, architecture).SerializeToString(deterministic=True))


def _build(ensemble: Ensemble, architecture: Trees) -> Any:
    onnx = _onnx()
    model = onnx.ModelProto(ir_version=IR_VERSION)
    model.opset_import.add(domain="", version=OPSET)
    model.opset_import.add(domain="ai.onnx.ml", version=ML_OPSET)
    graph = model.graph
    graph.name = "trees"
    _add_trees(onnx, graph.node.add(op_type="TreeEnsemble", domain="ai.onnx.ml"), ensemble, architecture)
    graph.node.add(op_type="Add", input=["sums", "baseline"], output=["logits"])
    last = "Sigmoid" if architecture.outputs == 1 else "Softmax"
    graph.node.add(op_type=last, input=["logits"], output=[OUTPUT])
    _tensor(onnx, graph.initializer.add(name="baseline"), ensemble.baseline[None, :])
    for value, name, width in (
        (graph.input.add(), INPUT, architecture.inputs),
        (graph.output.add(), OUTPUT, architecture.outputs),
    ):
        value.name = name
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
        value.type.tensor_type.shape.dim.add(dim_param="rows")
        value.type.tensor_type.shape.dim.add(dim_value=width)
    return model


def _add_trees(onnx: Any, node: Any, ensemble: Ensemble, architecture: Trees) -> None:
    node.input.append(INPUT)
    node.output.append("sums")
    kinds = onnx.AttributeProto
    numbers = {"n_targets": architecture.outputs, "aggregate_function": SUM, "post_transform": NO_TRANSFORM}
    for name, number in numbers.items():
        node.attribute.add(name=name, type=kinds.INT, i=number)
    for name, field in _INTS.items():
        node.attribute.add(name=name, type=kinds.INTS, ints=getattr(ensemble, field).tolist())
    for name, field in _DOUBLES.items():
        _tensor(onnx, node.attribute.add(name=name, type=kinds.TENSOR).t, getattr(ensemble, field))
    modes = np.full(len(ensemble.splits), BRANCH_LEQ, np.uint8)
    _tensor(onnx, node.attribute.add(name="nodes_modes", type=kinds.TENSOR).t, modes)


def _tensor(onnx: Any, tensor: Any, values: npt.NDArray[Any]) -> None:
    tensor.data_type = onnx.TensorProto.DOUBLE if values.dtype == np.float64 else onnx.TensorProto.UINT8
    tensor.dims.extend(values.shape)
    tensor.raw_data = values.astype(values.dtype.newbyteorder("<")).tobytes()


def read_onnx(data: bytes, architecture: Trees) -> Ensemble:
    """The trees in a file that somebody else wrote; ModelRefused unless it is exactly their ONNX form."""
    sniff(data)
    model = _parse(data, 256 * (architecture.nodes + architecture.trees) + 65_536)
    ensemble = _extract(model)
    ensemble.check(architecture)
    form = _build(ensemble, architecture).SerializeToString(deterministic=True)
    if model.SerializeToString(deterministic=True) != form:
        raise ModelRefused("format.onnx", "holds more than, or other things than, the trees' one ONNX form")
    return ensemble


def _parse(data: bytes, most: int) -> Any:
    if len(data) > most:
        raise ModelRefused("format.onnx", f"{len(data)} bytes, at most {most} for the declared trees")
    try:
        return _onnx().ModelProto.FromString(data)
    except ModelRefused:
        raise
    except Exception as error:  # protobuf's own classes differ between its implementations
        raise ModelRefused("format.onnx", f"no ONNX model: {error}"[:200]) from error


def _extract(model: Any) -> Ensemble:
    """The arrays, from where the form has them; what else is there is judged by the caller."""
    if not len(model.graph.node) or not len(model.graph.initializer):
        raise ModelRefused("format.onnx", "no TreeEnsemble with a baseline")
    node = model.graph.node[0]
    attributes = {each.name: each for each in node.attribute}
    wanted = {*_INTS, *_DOUBLES}
    if node.op_type != "TreeEnsemble" or not wanted <= set(attributes):
        raise ModelRefused("format.onnx", f"begins with {node.op_type[:40]!r}, not with a whole TreeEnsemble")
    found: dict[str, Any] = {
        field: np.array(attributes[name].ints, np.int64) for name, field in _INTS.items()
    }
    found |= {field: _doubles(attributes[name].t.raw_data) for name, field in _DOUBLES.items()}
    return Ensemble(**found, baseline=_doubles(model.graph.initializer[0].raw_data))


def _doubles(data: bytes) -> Floats:
    if len(data) % 8:
        raise ModelRefused("format.onnx", "a tensor is no list of float64")
    return np.frombuffer(data, "<f8").astype(np.float64)
