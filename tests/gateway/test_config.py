"""Settings from a file, the environment and the command line."""

from pathlib import Path

import pytest

from gateway.app import create_app
from gateway.config import ConfigError, KeySettings, LevelSettings, ModelSettings, Settings, load_settings
from tests.fakes import ScriptedUpstream, says


def written(tmp_path: Path, text: str) -> Path:
    """A settings file with this text."""
    path = tmp_path / "thinkgate.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_the_defaults_hold() -> None:
    """No file and no variable: the embedded engine on the loopback address."""
    settings = load_settings(environ={})
    assert settings == Settings()
    assert settings.upstream is None
    assert settings.host == "127.0.0.1"


def test_the_environment_beats_the_file_and_the_command_line_beats_both(tmp_path: Path) -> None:
    """Each carrier overrides the one before it, field by field."""
    path = written(tmp_path, 'port = 1\nmax_samples = 2\nhost = "0.0.0.0"\n')
    settings = load_settings(path, {"THINKGATE_PORT": "3", "THINKGATE_MAX_SAMPLES": "4"}, port=5, host=None)
    assert (settings.port, settings.max_samples, settings.host) == (5, 4, "0.0.0.0")


def test_an_empty_variable_says_nothing() -> None:
    """As compose files write variables that aren't set."""
    assert load_settings(environ={"THINKGATE_UPSTREAM": ""}).upstream is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "prot: unknown setting"),
        ("port = 70000", "THINKGATE_PORT"),
        ("port = ", "not valid TOML"),
        ('upstream = "ftp://x"', "upstream"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, told: str) -> None:
    """The message says which setting is wrong."""
    with pytest.raises(ConfigError, match=told):
        load_settings(written(tmp_path, text), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that isn't there is told with the path."""
    with pytest.raises(ConfigError, match="nowhere"):
        load_settings(tmp_path / "nowhere.toml", {})


def test_a_key_is_never_shown() -> None:
    """Settings may be printed or logged without giving the upstream's key away."""
    settings = load_settings(environ={"THINKGATE_UPSTREAM_KEY": "sk-secret"})
    assert "sk-secret" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_a_wrong_key_type_does_not_show_the_value(tmp_path: Path) -> None:
    """An error about the key doesn't repeat it."""
    with pytest.raises(ConfigError) as told:
        load_settings(written(tmp_path, "upstream_key = [1234567]"), {})
    assert "1234567" not in str(told.value)


def test_every_setting_is_documented() -> None:
    """docs/reference/settings.md names each one."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    tables = (Settings, ModelSettings, LevelSettings, KeySettings)
    fields = [field for table in tables for field in table.model_fields]
    assert [field for field in fields if f"`{field}`" not in page] == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(family="qwen4"), "unknown model family 'qwen4'"),
        (Settings(default_budget="hgih"), "default_budget: unknown value 'hgih'"),
        (Settings(models={"a-*": ModelSettings(default_budget="deep")}), "unknown value 'deep'"),
    ],
)
def test_what_only_the_tables_know_is_checked_at_the_start(settings: Settings, told: str) -> None:
    """A family or a budget that can't be stops the gateway before a client meets it."""
    with pytest.raises(ConfigError, match=told):
        create_app(settings, ScriptedUpstream(says("4")))


def test_a_level_of_ones_own_may_be_the_default() -> None:
    """Levels and the budgets that name them may be set together."""
    settings = Settings(default_budget="deep", levels={"deep": LevelSettings(tokens=9)})
    assert create_app(settings, ScriptedUpstream(says("4"))).title == "ThinkGate"


@pytest.mark.parametrize(
    ("value", "paths"), [("a.gguf, b/c.gguf,", ("a.gguf", "b/c.gguf")), (" ", ()), (["a.gguf"], ("a.gguf",))]
)
def test_adapters_are_a_list_or_a_text_with_commas(value: object, paths: tuple[str, ...]) -> None:
    """An empty part is none."""
    assert load_settings(None, {}, embedded_adapters=value).embedded_adapters == tuple(map(Path, paths))
    if isinstance(value, str):
        environ = {"THINKGATE_EMBEDDED_ADAPTERS": value}
        assert load_settings(None, environ).embedded_adapters == tuple(map(Path, paths))
