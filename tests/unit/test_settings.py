"""A setting that will not do is refused by the variable's name, and its value is not told."""

import pytest

from services.inference.settings import InferenceSettings
from shared.errors import Refused
from shared.settings import PlatformSettings, Settings


@pytest.mark.parametrize(
    ("settings", "variable", "value", "wrong"),
    [
        (InferenceSettings, "MILLRACE_INFERENCE__ATTRIBUTION_SHARE", "7", "less than or equal to 1"),
        (InferenceSettings, "MILLRACE_INFERENCE__RUNTIME__MAX_RECORDS", "many", "valid integer"),
        (InferenceSettings, "MILLRACE_INFERENCE__RUNTIME", "{", "runtime"),
        (InferenceSettings, "MILLRACE_INFERENCE__RUNTIME__UNHEARD_OF", "1", "not permitted"),
        (PlatformSettings, "MILLRACE_KAFKA__SECURITY_PROTOCOL", "TLS", "'PLAINTEXT', 'SSL'"),
        (PlatformSettings, "MILLRACE_KAFKA__REPLICATION_FACTOR", "three", "valid integer"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    settings: type[Settings], variable: str, value: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Refused, match=wrong) as refusal:
        settings()
    if value != "{":
        assert str(refusal.value).startswith(f"{variable}: ")
        assert value not in str(refusal.value)
