"""Small problems for writing one function each, with tests and a solution that passes them.

Tests call the function with plain values (see `training.sandbox`), edge cases among them. The task gives
the function's signature and every rule that the tests rely on, because a correct reply must pass.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PROBLEMS", "FunctionProblem"]


@dataclass(frozen=True, slots=True)
class FunctionProblem:
    """A task for one function, a solution, and the tests that it passes, which are Python assertions."""

    name: str
    task: str
    solution: str
    tests: str


def _problem(task: str, solution: str, tests: str) -> FunctionProblem:
    """Make a problem. The task becomes one line; it names the function as "Write name(...)"."""
    task = " ".join(task.split())
    return FunctionProblem(task.split()[1].partition("(")[0], task, solution.lstrip(), tests.lstrip())


PROBLEMS = (
    _problem(
        """
Write count_vowels(text), the number of letters a, e, i, o and u in a text, small or capital.
""",
        """
def count_vowels(text):
    return sum(c in 'aeiou' for c in text.lower())
""",
        """
assert count_vowels('') == 0
assert count_vowels('Education') == 5
assert count_vowels('RHYTHM') == 0
assert count_vowels('AaEe y') == 4
""",
    ),
    _problem(
        """
Write digit_sum(n), the sum of the decimal digits of an integer, whose sign doesn't matter.
""",
        """
def digit_sum(n):
    return sum(int(d) for d in str(abs(n)))
""",
        """
assert digit_sum(0) == 0
assert digit_sum(409) == 13
assert digit_sum(-88) == 16
assert digit_sum(10**30 + 5) == 6
""",
    ),
    _problem(
        """
Write second_largest(numbers), the second largest of the different numbers in a list, or None
where there are fewer than two different ones.
""",
        """
def second_largest(numbers):
    s = sorted(set(numbers))
    return s[-2] if len(s) > 1 else None
""",
        """
assert second_largest([3, 9, 9, 4]) == 4
assert second_largest([7, 7]) is None
assert second_largest([]) is None
assert second_largest([-5, -2, -9]) == -5
""",
    ),
    _problem(
        """
Write run_lengths(text), a list of (character, count) tuples, one for each stretch of equal
characters in a text, in order.
""",
        """
from itertools import groupby
def run_lengths(text):
    return [(c, len(list(g))) for c, g in groupby(text)]
""",
        """
assert run_lengths('') == []
assert run_lengths('aabccc') == [('a', 2), ('b', 1), ('c', 3)]
assert run_lengths('abA') == [('a', 1), ('b', 1), ('A', 1)]
""",
    ),
    _problem(
        """
Write is_balanced(text), True where the brackets (), [] and {} in a text are closed in the right
order, else False; other characters don't matter.
""",
        """
def is_balanced(text):
    stack = []
    pairs = {')': '(', ']': '[', '}': '{'}
    for c in text:
        if c in '([{':
            stack.append(c)
        elif c in pairs and (not stack or stack.pop() != pairs[c]):
            return False
    return not stack
""",
        """
assert is_balanced('') is True
assert is_balanced('f(a[1], {b})') is True
assert is_balanced('(]') is False
assert is_balanced('((') is False
assert is_balanced(')(') is False
""",
    ),
    _problem(
        """
Write common_start(words), the longest text that all words of a list begin with; '' for an empty
list.
""",
        """
import os
def common_start(words):
    return os.path.commonprefix(words)
""",
        """
assert common_start(['flower', 'flow', 'flight']) == 'fl'
assert common_start(['a', 'b']) == ''
assert common_start([]) == ''
assert common_start(['same', 'same']) == 'same'
""",
    ),
    _problem(
        """
Write rotate(items, k), a new list in which every item has moved k places to the right, those at
the end coming round to the front; k may be negative or larger than the list, the list may be
empty.
""",
        """
def rotate(items, k):
    if not items:
        return []
    k %= len(items)
    return items[-k:] + items[:-k] if k else list(items)
""",
        """
assert rotate([1, 2, 3, 4], 1) == [4, 1, 2, 3]
assert rotate([1, 2, 3], -1) == [2, 3, 1]
assert rotate([1, 2, 3], 7) == [3, 1, 2]
assert rotate([], 3) == []
assert rotate([1, 2], 0) == [1, 2]
""",
    ),
    _problem(
        """
Write to_roman(n), the Roman numeral of an integer from 1 to 3999, in capital letters.
""",
        """
VALUES = [1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1]
SIGNS = ["M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"]
def to_roman(n):
    out = ""
    for value, sign in zip(VALUES, SIGNS):
        out += sign * (n // value)
        n %= value
    return out
""",
        """
assert to_roman(1) == 'I'
assert to_roman(1994) == 'MCMXCIV'
assert to_roman(3999) == 'MMMCMXCIX'
assert to_roman(48) == 'XLVIII'
""",
    ),
    _problem(
        """
Write merge_sorted(a, b), one list, in ascending order, of all items of two lists that are in it
already.
""",
        """
import heapq
def merge_sorted(a, b):
    return list(heapq.merge(a, b))
""",
        """
assert merge_sorted([1, 4], [2, 3, 9]) == [1, 2, 3, 4, 9]
assert merge_sorted([], [1]) == [1]
assert merge_sorted([2, 2], [2]) == [2, 2, 2]
assert merge_sorted([], []) == []
""",
    ),
    _problem(
        """
Write prime_factors(n), the prime factors of an integer of 1 or more in ascending order, each as
often as it divides n; [] for 1.
""",
        """
def prime_factors(n):
    out, p = [], 2
    while p * p <= n:
        while n % p == 0:
            out.append(p)
            n //= p
        p += 1
    return out + [n] if n > 1 else out
""",
        """
assert prime_factors(1) == []
assert prime_factors(360) == [2, 2, 2, 3, 3, 5]
assert prime_factors(97) == [97]
assert prime_factors(2**10) == [2] * 10
""",
    ),
    _problem(
        """
Write transpose(rows), a list of a table's columns as lists; the table is a list of equally long
lists, and [] for an empty one.
""",
        """
def transpose(rows):
    return [list(c) for c in zip(*rows)]
""",
        """
assert transpose([[1, 2, 3], [4, 5, 6]]) == [[1, 4], [2, 5], [3, 6]]
assert transpose([]) == []
assert transpose([[7]]) == [[7]]
""",
    ),
    _problem(
        """
Write caesar(text, shift), the text with each letter from a to z and A to Z moved `shift` places
on in the alphabet, z followed by a again; shift may be negative, and other characters stay.
""",
        """
def caesar(text, shift):
    def move(c):
        if 'a' <= c <= 'z' or 'A' <= c <= 'Z':
            base = ord('a' if c.islower() else 'A')
            return chr((ord(c) - base + shift) % 26 + base)
        return c
    return ''.join(map(move, text))
""",
        """
assert caesar('abc', 1) == 'bcd'
assert caesar('Xyz!', 3) == 'Abc!'
assert caesar('bcd', -1) == 'abc'
assert caesar('Hello, World', 26) == 'Hello, World'
""",
    ),
    _problem(
        """
Write flatten(items), one list of all items that aren't lists, in order, of lists nested to any
depth.
""",
        """
def flatten(items):
    out = []
    for x in items:
        out.extend(flatten(x) if isinstance(x, list) else [x])
    return out
""",
        """
assert flatten([]) == []
assert flatten([1, [2, [3, []]], 4]) == [1, 2, 3, 4]
assert flatten([['ab'], 'c']) == ['ab', 'c']
""",
    ),
    _problem(
        """
Write moving_average(numbers, size), the mean of each stretch of `size` numbers that follow one
another, in order; [] where there are fewer numbers.
""",
        """
def moving_average(numbers, size):
    return [sum(numbers[i:i + size]) / size for i in range(len(numbers) - size + 1)]
""",
        """
assert moving_average([1, 2, 3, 4], 2) == [1.5, 2.5, 3.5]
assert moving_average([5], 1) == [5.0]
assert moving_average([1, 2], 3) == []
""",
    ),
    _problem(
        """
Write is_anagram(a, b), True where two texts have the same letters equally often, else False;
case, spaces and all that isn't a letter don't matter.
""",
        """
def is_anagram(a, b):
    def key(t):
        return sorted(c for c in t.lower() if c.isalpha())
    return key(a) == key(b)
""",
        """
assert is_anagram('Listen', 'Silent') is True
assert is_anagram('Dormitory!', 'dirty room') is True
assert is_anagram('aab', 'abb') is False
assert is_anagram('', '') is True
""",
    ),
    _problem(
        """
Write pairs_with_sum(numbers, total), the number of pairs of different places i < j in a list
whose numbers add up to total.
""",
        """
def pairs_with_sum(numbers, total):
    seen, count = {}, 0
    for n in numbers:
        count += seen.get(total - n, 0)
        seen[n] = seen.get(n, 0) + 1
    return count
""",
        """
assert pairs_with_sum([1, 5, 3, 3], 6) == 2
assert pairs_with_sum([2, 2, 2], 4) == 3
assert pairs_with_sum([], 0) == 0
assert pairs_with_sum([4], 8) == 0
""",
    ),
    _problem(
        """
Write to_base(n, base), an integer of 0 or more in a base from 2 to 16, with the digits 0-9 and
a-f.
""",
        """
def to_base(n, base):
    digits = ''
    while True:
        n, d = divmod(n, base)
        digits = '0123456789abcdef'[d] + digits
        if not n:
            return digits
""",
        """
assert to_base(0, 2) == '0'
assert to_base(255, 16) == 'ff'
assert to_base(10, 2) == '1010'
assert to_base(63, 8) == '77'
""",
    ),
    _problem(
        """
Write collatz_steps(n), how many steps it takes from an integer of 1 or more down to 1, where a
step halves an even number and makes 3 times itself plus 1 of an odd one.
""",
        """
def collatz_steps(n):
    k = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        k += 1
    return k
""",
        """
assert collatz_steps(1) == 0
assert collatz_steps(6) == 8
assert collatz_steps(27) == 111
""",
    ),
    _problem(
        """
Write word_counts(text), a dict from each word of a text, in small letters, to how often it
comes; words are set apart by spaces, and there is no punctuation.
""",
        """
from collections import Counter
def word_counts(text):
    return dict(Counter(text.lower().split()))
""",
        """
assert word_counts('The cat the dog') == {'the': 2, 'cat': 1, 'dog': 1}
assert word_counts('') == {}
assert word_counts('  a   A ') == {'a': 2}
""",
    ),
    _problem(
        """
Write longest_run(numbers), the length of the longest stretch of a list in which each number is
larger than the one before; 0 for an empty list.
""",
        """
def longest_run(numbers):
    best = now = 0
    for i, n in enumerate(numbers):
        now = now + 1 if i and n > numbers[i - 1] else 1
        best = max(best, now)
    return best
""",
        """
assert longest_run([]) == 0
assert longest_run([5]) == 1
assert longest_run([1, 2, 2, 3, 4, 0]) == 3
assert longest_run([3, 2, 1]) == 1
""",
    ),
    _problem(
        """
Write overlap(a, b), the length that two intervals share; each is a (start, end) tuple with
start <= end. It is 0 where they share nothing or a point.
""",
        """
def overlap(a, b):
    return max(0, min(a[1], b[1]) - max(a[0], b[0]))
""",
        """
assert overlap((0, 5), (3, 9)) == 2
assert overlap((0, 1), (1, 2)) == 0
assert overlap((0, 10), (2, 3)) == 1
assert overlap((5, 6), (0, 1)) == 0
""",
    ),
    _problem(
        """
Write without_repeats(items), a list of the items in their order, each only where it comes
first.
""",
        """
def without_repeats(items):
    out = []
    for x in items:
        if x not in out:
            out.append(x)
    return out
""",
        """
assert without_repeats([3, 1, 3, 2, 1]) == [3, 1, 2]
assert without_repeats([]) == []
assert without_repeats([[1], [1], [2]]) == [[1], [2]]
""",
    ),
    _problem(
        """
Write clock(seconds), a number of seconds of 0 or more as 'h:mm:ss', with at least one digit for
the hours and always two for minutes and seconds.
""",
        """
def clock(seconds):
    return f'{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}'
""",
        """
assert clock(0) == '0:00:00'
assert clock(3661) == '1:01:01'
assert clock(86399) == '23:59:59'
assert clock(360000) == '100:00:00'
""",
    ),
    _problem(
        """
Write pascal_row(n), row n of Pascal's triangle as a list; row 0 is [1].
""",
        """
import math
def pascal_row(n):
    return [math.comb(n, k) for k in range(n + 1)]
""",
        """
assert pascal_row(0) == [1]
assert pascal_row(4) == [1, 4, 6, 4, 1]
assert sum(pascal_row(20)) == 2**20
""",
    ),
    _problem(
        """
Write camel_to_snake(name), a name as 'someLongName' or 'SomeLongName' in the form
'some_long_name'. Each capital letter begins a word.
""",
        """
def camel_to_snake(name):
    out = ''
    for i, c in enumerate(name):
        out += ('_' if i and c.isupper() else '') + c.lower()
    return out
""",
        """
assert camel_to_snake('someLongName') == 'some_long_name'
assert camel_to_snake('Name') == 'name'
assert camel_to_snake('plain') == 'plain'
assert camel_to_snake('getXY') == 'get_x_y'
""",
    ),
    _problem(
        """
Write change(amount, coins), the fewest coins that make up an amount, each kind as often as
needed, or None where it can't be done; change(0, coins) is 0.
""",
        """
def change(amount, coins):
    best = [0] + [None] * amount
    for a in range(1, amount + 1):
        found = [best[a - c] for c in coins if c <= a and best[a - c] is not None]
        best[a] = min(found) + 1 if found else None
    return best[amount]
""",
        """
assert change(0, [5]) == 0
assert change(12, [1, 5, 10]) == 3
assert change(6, [1, 3, 4]) == 2
assert change(7, [2, 4]) is None
""",
    ),
    _problem(
        """
Write spiral(rows), the numbers of a table, a list of equally long lists, in a spiral: along the
first row, down the last column, back along the last row, up the first column, and so on
inwards.
""",
        """
def spiral(rows):
    out, rows = [], [list(r) for r in rows]
    while rows:
        out += rows.pop(0)
        rows = [list(c) for c in zip(*rows)][::-1]
    return out
""",
        """
assert spiral([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) == [1, 2, 3, 6, 9, 8, 7, 4, 5]
assert spiral([[1, 2], [3, 4], [5, 6]]) == [1, 2, 4, 6, 5, 3]
assert spiral([]) == []
assert spiral([[1, 2, 3]]) == [1, 2, 3]
""",
    ),
    _problem(
        """
Write evaluate_postfix(text), the value of an expression of integers and + - * in postfix
notation, its parts set apart by spaces, as '3 4 + 2 *', which is 14.
""",
        """
def evaluate_postfix(text):
    stack = []
    for t in text.split():
        if t in '+-*':
            b, a = stack.pop(), stack.pop()
            stack.append(a + b if t == '+' else a - b if t == '-' else a * b)
        else:
            stack.append(int(t))
    return stack[0]
""",
        """
assert evaluate_postfix('3 4 + 2 *') == 14
assert evaluate_postfix('5 1 2 + 4 * + 3 -') == 14
assert evaluate_postfix('-7') == -7
assert evaluate_postfix('2 9 -') == -7
""",
    ),
    _problem(
        """
Write edit_distance(a, b), the fewest insertions, deletions and replacements of one character
that turn one text into the other.
""",
        """
def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]
""",
        """
assert edit_distance('kitten', 'sitting') == 3
assert edit_distance('', 'abc') == 3
assert edit_distance('same', 'same') == 0
assert edit_distance('ab', 'ba') == 2
""",
    ),
    _problem(
        """
Write topological(needs), the tasks of a dict from each task's name to the list of tasks that
must come before it, in an order that keeps to that; of all tasks that could come next the
alphabetically first does. Every task is a key. Return None where there is no such order.
""",
        """
def topological(needs):
    done = []
    while len(done) < len(needs):
        ready = [t for t in needs if t not in done and all(n in done for n in needs[t])]
        if not ready:
            return None
        done.append(min(ready))
    return done
""",
        """
assert topological({}) == []
assert topological({'b': ['a'], 'a': [], 'c': ['a']}) == ['a', 'b', 'c']
assert topological({'a': ['b'], 'b': ['a']}) is None
assert topological({'a': ['z'], 'z': [], 'm': []}) == ['m', 'z', 'a']
""",
    ),
)
