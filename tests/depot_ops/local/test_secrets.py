"""Every installation has its own, and nobody else can read them."""

import stat

from depot_ops.local.secrets import StackSecrets


def test_generated_once_and_private(tmp_path):
    path = tmp_path / "secrets.json"
    first = StackSecrets.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert StackSecrets.load(path) == first
    values = [value for value in first.model_dump().values() if value]
    assert len(set(values)) == len(values)
    assert all(len(value) >= 32 for value in values)
    assert StackSecrets.load(tmp_path / "other.json").jwt_secret != first.jwt_secret


def test_what_a_release_adds_is_kept(tmp_path):
    path = tmp_path / "secrets.json"
    first = StackSecrets.load(path)
    path.write_text(first.model_dump_json(exclude={"pgadmin_password"}))
    second = StackSecrets.load(path)
    assert StackSecrets.load(path) == second
    assert second.model_dump(exclude={"pgadmin_password"}) == first.model_dump(exclude={"pgadmin_password"})
