"""Items 52 to 60 of the bad inputs: every hostile artefact is refused with its own reason."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shared.models.loading import load_model
from shared.models.manifest import Artefact, Category, Linear, Mlp
from shared.models.safety import ModelRefused, Tensor, check_safetensors, read_tensors, write_tensors
from tests.unit.models.makers import FINGERPRINT, NAMES, artefact, rebound, samples, weights, with_weights


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was opened",))


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(_Bomb()))
    return buffer.getvalue()


def _file(header: dict[str, Any] | str, body: bytes = b"") -> bytes:
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + body


def _entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


DUPLICATE = '{"w":' + json.dumps(_entry([1], 0, 4)) + ',"w":' + json.dumps(_entry([1], 4, 8)) + "}"
FILES: dict[str, tuple[bytes, str]] = {
    "pickle": (pickle.dumps(_Bomb()), "format.pickle"),
    "old_pickle": (pickle.dumps(_Bomb(), protocol=0), "format.safetensors"),
    "zip": (_zip(), "format.zip"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(64), "format.7z"),
    "gzip": (b"\x1f\x8b" + bytes(64), "format.gzip"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(64), "format.zstd"),
    "empty": (b"", "format.safetensors"),
    "short": (b"\x08\0\0\0", "format.safetensors"),
    "huge_header": (struct.pack("<Q", 1 << 62) + b"{}", "format.safetensors"),
    "header_behind_the_end": (struct.pack("<Q", 100) + b"{}", "format.safetensors"),
    "header_not_json": (_file("{nope"), "format.safetensors"),
    "header_not_utf8": (struct.pack("<Q", 2) + b"{\xff", "format.safetensors"),
    "header_a_list": (_file("[1]"), "format.safetensors"),
    "header_too_deep": (_file("[" * 100_000), "format.safetensors"),
    "overlap": (_file({"a": _entry([2], 0, 8), "b": _entry([1], 4, 8)}, bytes(8)), "format.safetensors"),
    "hole": (_file({"a": _entry([1], 0, 4), "b": _entry([1], 8, 12)}, bytes(12)), "format.safetensors"),
    "hole_in_front": (_file({"a": _entry([1], 4, 8)}, bytes(8)), "format.safetensors"),
    "trailing": (_file({"a": _entry([1], 0, 4)}, bytes(5)), "format.safetensors"),
    "behind_the_end": (_file({"a": _entry([2], 0, 8)}, bytes(4)), "format.safetensors"),
    "shape_overflow": (
        _file({"a": _entry([1 << 33, 1 << 33], 0, 4)}, bytes(4)),
        "format.safetensors",
    ),
    "shape_negative": (_file({"a": _entry([-1], 0, 4)}, bytes(4)), "format.safetensors"),
    "shape_true": (_file({"a": _entry([True], 0, 4)}, bytes(4)), "format.safetensors"),
    "shape_not_a_list": (
        _file({"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, bytes(4)),
        "format.safetensors",
    ),
    "offsets_reversed": (_file({"a": _entry([1], 4, 0)}, bytes(4)), "format.safetensors"),
    "entry_with_more": (
        _file({"a": {**_entry([1], 0, 4), "path": "/etc/passwd"}}, bytes(4)),
        "format.safetensors",
    ),
    "too_many_tensors": (_file({f"t{i}": _entry([0], 0, 0) for i in range(2000)}), "format.safetensors"),
    "duplicate_key": (_file(DUPLICATE, bytes(8)), "weights.duplicate_key"),
    "half_precision": (_file({"a": _entry([2], 0, 4, "F16")}, bytes(4)), "dtype.mismatch"),
    "nan": (_file({"a": _entry([1], 0, 4)}, struct.pack("<f", np.nan)), "weights.nonfinite"),
    "infinity": (_file({"a": _entry([1], 0, 8, "F64")}, struct.pack("<d", -np.inf)), "weights.nonfinite"),
}


@pytest.mark.parametrize("case", FILES)
def test_hostile_files_are_refused(case: str) -> None:
    data, reason = FILES[case]
    for name in ("weights.safetensors", "golden.safetensors"):
        forged = rebound(artefact(), {name: data})
        forged.verify()
        with pytest.raises(ModelRefused) as refused:
            load_model(forged, FINGERPRINT, NAMES)
        assert refused.value.reason == reason


@pytest.mark.parametrize("case", [case for case in FILES if case not in ("nan", "infinity")])
def test_our_own_check_needs_no_help_from_the_library(case: str) -> None:
    data, reason = FILES[case]
    with pytest.raises(ModelRefused) as refused:
        check_safetensors(data)
    assert refused.value.reason == reason


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_an_honest_header_that_begins_like_a_pickle_is_read(length: int) -> None:
    text = json.dumps({"a": _entry([1], 0, 4)}).ljust(length)
    data = _file(text, bytes(4))
    assert data[0] == 0x80
    assert list(read_tensors(data)) == ["a"]


def test_written_tensors_pass_the_check_and_are_the_same_bytes_each_time() -> None:
    tensors: dict[str, Tensor] = {"b": np.arange(6.0).reshape(2, 3), "a": np.zeros(0, np.float32)}
    data = write_tensors(tensors)
    check_safetensors(data)
    assert data == write_tensors(dict(reversed(tensors.items())))
    np.testing.assert_array_equal(read_tensors(data)["b"], tensors["b"])


def _golden(of: Artefact, **changes: Any) -> Artefact:
    tensors = read_tensors(of.files[of.manifest.golden.file])
    return rebound(of, {of.manifest.golden.file: write_tensors({**tensors, **changes})})


def _without(of: Artefact, name: str) -> Artefact:
    kept = {key: tensor for key, tensor in weights(of).items() if key != name}
    return rebound(of, {of.manifest.weights: write_tensors(kept)})


def _embedding() -> Artefact:
    category = Category(input=1, values=5, width=2)
    return artefact(Mlp(inputs=3, hidden=(4,), categorical=(category,)))


def _overflowing() -> Artefact:
    """Finite weights whose products are not: infinity minus infinity."""
    base = artefact(Mlp(inputs=3, hidden=(2,)))
    forged = with_weights(
        base,
        layers__0__weight=np.full((2, 3), 3e38, np.float32),
        layers__0__bias=np.full(2, 3e38, np.float32),
        layers__1__weight=np.array([[3e38, -3e38]], np.float32),
    )
    return _golden(forged, inputs=np.full((8, 3), 1e9))


MODELS: dict[str, tuple[Callable[[], Artefact], str]] = {
    "tensor_missing": (lambda: _without(artefact(), "layers.0.bias"), "weights.shape"),
    "tensor_too_many": (lambda: with_weights(artefact(), extra=np.zeros(1, np.float32)), "weights.shape"),
    "wrong_shape": (
        lambda: with_weights(artefact(), layers__0__bias=np.zeros(5, np.float32)),
        "weights.shape",
    ),
    "wrong_type": (lambda: with_weights(artefact(), layers__0__bias=np.zeros(4)), "dtype.mismatch"),
    "other_type_declared": (lambda: rebound(artefact(), {}, dtype="float64"), "dtype.mismatch"),
    "zero_scale": (lambda: with_weights(artefact(), scaling__scale=np.zeros(3)), "weights.shape"),
    "other_architecture": (
        lambda: rebound(artefact(), {}, architecture=Linear(inputs=3)),
        "weights.shape",
    ),
    "other_features_declared": (
        lambda: rebound(artefact(), {}, feature_fingerprint="00" * 32),
        "features.mismatch",
    ),
    "other_feature_order": (
        lambda: rebound(artefact(), {}, feature_names=tuple(reversed(NAMES))),
        "features.mismatch",
    ),
    "more_outputs": (lambda: artefact(Linear(inputs=3, classes=3)), "outputs.mismatch"),
    "table_of_another_size": (
        lambda: with_weights(_embedding(), embeddings__0__weight=np.zeros((5, 2), np.float32)),
        "weights.shape",
    ),
    "table_missing": (lambda: _without(_embedding(), "embeddings.0.weight"), "weights.shape"),
    "golden_differs": (lambda: _golden(artefact(), outputs=np.full(8, 0.123)), "golden.mismatch"),
    "golden_of_other_weights": (
        lambda: with_weights(artefact(), layers__2__bias=np.array([5.0], np.float32)),
        "golden.mismatch",
    ),
    "golden_out_of_range": (lambda: _golden(artefact(), outputs=np.full(8, 1.5)), "golden.range"),
    "golden_nonfinite": (_overflowing, "golden.nonfinite"),
    "golden_wrong_width": (lambda: _golden(artefact(), inputs=samples(8, 4)), "weights.shape"),
    "golden_fewer_rows": (lambda: _golden(artefact(), inputs=samples(2)), "weights.shape"),
    "golden_wrong_type": (
        lambda: _golden(artefact(), outputs=np.zeros(8, np.float32)),
        "dtype.mismatch",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_do_not_fit_are_refused(case: str) -> None:
    make, reason = MODELS[case]
    forged = make()
    forged.verify()
    with pytest.raises(ModelRefused) as refused:
        load_model(forged, FINGERPRINT, NAMES)
    assert refused.value.reason == reason


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "architecture",
    [
        Linear(inputs=3),
        Mlp(inputs=3, hidden=(4, 2)),
        Linear(inputs=3, classes=5),
        Mlp(inputs=3, hidden=(4,), classes=12),
        Mlp(inputs=3, hidden=(4,), categorical=(Category(input=1, values=5, width=2),)),
    ],
)
def test_an_honest_model_is_loaded(architecture: Linear | Mlp, dtype: Any) -> None:
    made = artefact(architecture, dtype)
    loaded = load_model(made, FINGERPRINT, NAMES, classes=architecture.classes)
    assert loaded.digest == made.digest
    assert loaded.classes == architecture.classes


def _three(**changes: Any) -> Artefact:
    return _golden(artefact(Linear(inputs=3, classes=3)), **changes)


THREE: dict[str, tuple[Callable[[], Artefact], str]] = {
    "sum": (lambda: _three(outputs=np.full((8, 3), 0.4)), "golden.range"),
    "outside": (lambda: _three(outputs=np.tile([1.2, -0.1, -0.1], (8, 1))), "golden.range"),
    "other": (lambda: _three(outputs=np.full((8, 3), 1 / 3)), "golden.mismatch"),
    "flat": (lambda: _three(outputs=np.full(8, 0.5)), "weights.shape"),
    "two": (lambda: artefact(), "outputs.mismatch"),
}


@pytest.mark.parametrize("case", THREE)
def test_models_of_three_classes_that_do_not_fit_are_refused(case: str) -> None:
    make, reason = THREE[case]
    with pytest.raises(ModelRefused) as refused:
        load_model(make(), FINGERPRINT, NAMES, classes=3)
    assert refused.value.reason == reason
