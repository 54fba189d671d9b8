"""Settings from a file, the environment and the command line."""

from pathlib import Path

import pytest

from gateway.app import create_app
from gateway.config import ConfigError, KeySettings, LevelSettings, ModelSettings, Settings, load_settings
from tests.fakes import ScriptedUpstream, says


def written(tmp_path: Path, text: str) -> Path:
    """Write a settings file with this text, and return its path."""
    path = tmp_path / "thinkgate.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_need_no_file_and_no_variable() -> None:
    """They serve the embedded engine on the loopback address."""
    settings = load_settings(environ={})
    assert settings == Settings()
    assert settings.upstream is None
    assert settings.host == "127.0.0.1"


def test_the_environment_beats_the_file_and_the_command_line_beats_both(tmp_path: Path) -> None:
    """Each source beats the one before it, field by field."""
    path = written(tmp_path, 'port = 1\nmax_samples = 2\nhost = "0.0.0.0"\n')
    settings = load_settings(path, {"THINKGATE_PORT": "3", "THINKGATE_MAX_SAMPLES": "4"}, port=5, host=None)
    assert (settings.port, settings.max_samples, settings.host) == (5, 4, "0.0.0.0")


def test_an_empty_variable_counts_as_none() -> None:
    """Compose files write an unset variable as an empty one."""
    assert load_settings(environ={"THINKGATE_UPSTREAM": ""}).upstream is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "prot: unknown setting"),
        ("port = 70000", "THINKGATE_PORT"),
        ("port = ", "not valid TOML"),
        ('upstream = "ftp://x"', "upstream"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    """The message says which setting is wrong."""
    with pytest.raises(ConfigError, match=message):
        load_settings(written(tmp_path, text), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message holds the path of a file that does not exist."""
    with pytest.raises(ConfigError, match="nowhere"):
        load_settings(tmp_path / "nowhere.toml", {})


def test_a_key_is_never_shown() -> None:
    """Printed or logged settings do not reveal the upstream's key."""
    settings = load_settings(environ={"THINKGATE_UPSTREAM_KEY": "sk-secret"})
    assert "sk-secret" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_a_wrong_key_type_does_not_show_the_value(tmp_path: Path) -> None:
    """An error about the key doesn't repeat its value."""
    with pytest.raises(ConfigError) as error:
        load_settings(written(tmp_path, "upstream_key = [1234567]"), {})
    assert "1234567" not in str(error.value)


def test_every_setting_is_documented() -> None:
    """docs/reference/settings.md names each setting."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    tables = (Settings, ModelSettings, LevelSettings, KeySettings)
    fields = [field for table in tables for field in table.model_fields]
    assert [field for field in fields if f"`{field}`" not in page] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(family="qwen4"), "unknown model family 'qwen4'"),
        (Settings(default_budget="hgih"), "default_budget: unknown value 'hgih'"),
        (Settings(models={"a-*": ModelSettings(default_budget="deep")}), "unknown value 'deep'"),
    ],
)
def test_families_and_budgets_are_checked_at_the_start(settings: Settings, message: str) -> None:
    """An unknown family or budget stops the gateway before a client notices."""
    with pytest.raises(ConfigError, match=message):
        create_app(settings, ScriptedUpstream(says("4")))


def test_a_new_level_can_be_the_default() -> None:
    """The same settings can add a level and name it as a budget."""
    settings = Settings(default_budget="deep", levels={"deep": LevelSettings(tokens=9)})
    assert create_app(settings, ScriptedUpstream(says("4"))).title == "ThinkGate"


@pytest.mark.parametrize(
    ("value", "paths"), [("a.gguf, b/c.gguf,", ("a.gguf", "b/c.gguf")), (" ", ()), (["a.gguf"], ("a.gguf",))]
)
def test_adapters_are_a_list_or_a_text_with_commas(value: object, paths: tuple[str, ...]) -> None:
    """Empty parts of the text are ignored."""
    assert load_settings(None, {}, embedded_adapters=value).embedded_adapters == tuple(map(Path, paths))
    if isinstance(value, str):
        environ = {"THINKGATE_EMBEDDED_ADAPTERS": value}
        assert load_settings(None, environ).embedded_adapters == tuple(map(Path, paths))


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"THINKGATE_PORT": "many"}, r"^port \(THINKGATE_PORT\): .*valid integer"),
        ({"THINKGATE_IDLE_TIMEOUT": "inf"}, r"^idle_timeout \(THINKGATE_IDLE_TIMEOUT\): .*finite number"),
        ({"THINKGATE_HEARTBEAT": "inf"}, r"^heartbeat \(THINKGATE_HEARTBEAT\): .*finite number"),
        ({"THINKGATE_LAUNCH": "some"}, r"^launch \(THINKGATE_LAUNCH\): .*'waves' or 'all'"),
        ({"THINKGATE_RECORD_REDACT": "text, face"}, r"^record_redact\.1 \(THINKGATE_RECORD_REDACT\): "),
        ({"THINKGATE_LEVELS": '{"low": {"tokens": 9}}'}, r"^levels \(THINKGATE_LEVELS\): .*dictionary"),
    ],
)
def test_a_mistake_in_the_environment_names_its_variable(environ: dict[str, str], message: str) -> None:
    """The message holds the setting, the variable and the allowed values."""
    with pytest.raises(ConfigError, match=message):
        load_settings(environ=environ)


def test_the_process_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `environ`, the variables are those of the process; those of other parts are ignored."""
    monkeypatch.setenv("THINKGATE_MAX_SAMPLES", "5")
    monkeypatch.setenv("THINKGATE_CACHE", "/nowhere")
    assert load_settings().max_samples == 5


def test_a_setting_of_a_table_is_named_without_a_variable(tmp_path: Path) -> None:
    """No variable can hold a table, so the message names only the setting."""
    with pytest.raises(ConfigError, match=r"^levels\.low\.tokens: Input should be a valid integer"):
        load_settings(written(tmp_path, '[levels.low]\ntokens = "few"'), {})
