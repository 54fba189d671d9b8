"""The language reward: scripts first, an identifier for long prose, without formulas and code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.rewards.making import SUM, reply
from training.rewards.language import Language, consistency, langid, prose

ENGLISH = "How many apples are left in the basket after the children have eaten?"
CHINESE = "篮子里还剩下多少个苹果?孩子们已经吃掉了一些。"
HINDI = "टोकरी में कितने सेब बचे हैं जब बच्चों ने खा लिया?"
JAPANESE = "かごの中にりんごはいくつ残っていますか。"
RUSSIAN = "Сколько яблок осталось в корзине после обеда?"


@pytest.mark.parametrize("question", [ENGLISH, CHINESE, HINDI, JAPANESE, RUSSIAN])
def test_the_same_language_is_consistent(question: str) -> None:
    """Thinking in the question's own words is fully in its language."""
    assert consistency(question, question) == 1.0


@pytest.mark.parametrize(
    ("question", "thinking"), [(ENGLISH, CHINESE), (CHINESE, ENGLISH), (RUSSIAN, HINDI), (ENGLISH, RUSSIAN)]
)
def test_another_script_is_not(question: str, thinking: str) -> None:
    """Thinking in another script is fully in another language."""
    assert consistency(question, thinking) == 0.0


def test_japanese_writes_with_three_scripts() -> None:
    """Katakana and Chinese characters belong in a Japanese question's thinking."""
    assert consistency(JAPANESE, "リンゴは三個残っています。答えは三です。") == 1.0
    assert consistency(CHINESE, "リンゴはまだのこっています") == 0.0


def test_mixing_is_counted_by_words() -> None:
    """With half the words in another script the reward is a half; two unspaced characters are a word."""
    assert consistency(ENGLISH, "There are three apples 还剩三个苹果是吧") == pytest.approx(0.5)


@pytest.mark.parametrize(
    "formula",
    [
        "$x^2 + y^2 = z^2$",
        "\\[\\frac{a}{b} \\text{apples}\\]",
        "`print(apples)`",
        "```python\nprint(1)\n```",
        "x_1 + y2",
    ],
)
def test_formulas_and_code_have_no_language(formula: str) -> None:
    """They don't count: Chinese thinking with a formula is still Chinese."""
    assert consistency(CHINESE, f"{CHINESE} {formula}") == 1.0
    assert prose(formula).replace("+", "").strip() == ""


@pytest.mark.parametrize(
    ("question", "thinking"), [("2 + 2 = ?", ENGLISH), (ENGLISH, ""), (ENGLISH, "$4$ so 4.")]
)
def test_nothing_to_judge(question: str, thinking: str) -> None:
    """A question without words, or hardly any thinking, gives no reward."""
    assert consistency(question, thinking) is None


def test_languages_of_one_script_need_an_identifier() -> None:
    """It tells long prose apart, paragraph by paragraph, where it is sure; short prose counts as fitting."""
    german = "Wir zählen zuerst alle Äpfel im Korb und ziehen dann die gegessenen davon ab. " * 2
    question, english = ENGLISH * 2, ENGLISH * 2

    def identify(text: str) -> tuple[str, float]:
        return ("de" if "zählen" in text else "en"), 0.99

    def doubtful(text: str) -> tuple[str, float]:
        return identify(text)[0], 0.6

    assert consistency(question, german) == 1.0
    assert consistency(question, german, identify) == 0.0
    assert consistency(question, german, doubtful) == 1.0
    assert consistency(question, "Wir zählen die Äpfel im Korb.", identify) == 1.0
    mixed = consistency(question, f"{english}\n\n{german}", identify)
    assert mixed is not None
    assert 0.4 < mixed < 0.6


def test_the_installed_identifier() -> None:
    """py3langid tells English from German, where it is installed."""
    pytest.importorskip("py3langid")
    identify = langid()
    assert identify is not None
    assert identify(ENGLISH)[0] == "en"
    assert identify("Wir zählen zuerst alle Äpfel im Korb.")[0] == "de"


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_has_a_share(question: str, thinking: str) -> None:
    """For any text the reward is a share or None."""
    share = consistency(question, thinking)
    assert share is None or 0 <= share <= 1


def test_the_reward_reads_the_thinking() -> None:
    """The answer's language is not judged here."""
    text = f"<think>Six times seven is forty two.</think>{CHINESE}"
    assert Language()(SUM, [reply(text)]) == [1.0]
