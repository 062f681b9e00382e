"""Ways to damage the text of a config; `MUTATIONS`: the function, and the share of its results that is invalid."""

import re

_WORD = re.compile(r"[A-Za-z_]{3,}")
_FIELD = re.compile(r"^\s*[A-Za-z_]+\s*:.*$")
_NUMBER = re.compile(r"(?<=: )-?[0-9.e-]+")


def _drop_line(text, rng):
    lines = text.splitlines()
    numbers = [number for number, line in enumerate(lines) if _FIELD.match(line)]
    del lines[rng.choice(numbers)]
    return "\n".join(lines)


def _misspell(text, rng):
    matches = [match for match in _WORD.finditer(text) if not _in_comment(text, match.start())]
    match = rng.choice(matches)
    word, place = match.group(), rng.randrange(len(match.group()) - 1)
    changed = rng.choice(
        [word[:place] + word[place + 1] + word[place] + word[place + 2 :], word[:place] + word[place + 1 :], word + "x"]
    )
    return text[: match.start()] + changed + text[match.end() :]


def _wrong_type(text, rng):
    match = rng.choice(list(re.finditer(r'(?<=: )("[^"\n]*"|[\w.-]+)', text)))
    return text[: match.start()] + rng.choice(['"word"', "3.7", "{ }", "[]", "true", "WORD", "'"]) + text[match.end() :]


def _out_of_range(text, rng):
    match = rng.choice(list(_NUMBER.finditer(text)))
    return (
        text[: match.start()] + rng.choice(["-1", "99999999999999999999", "1e400", "nan", "-0.5"]) + text[match.end() :]
    )


def _unbalance(text, rng):
    braces = [match.start() for match in re.finditer(r"[{}\[\]<>]", text) if not _in_comment(text, match.start())]
    place = rng.choice(braces)
    return text[:place] + rng.choice(["", text[place] * 2]) + text[place + 1 :]


def _noise(text, rng):
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(["\0", "{", "'", '"', ":", "\\", "#", "é", "\x7f", "::", "\n"]) + text[place + 1 :]


def _cut(text, rng):
    return text[: rng.randrange(len(text))]


def _in_comment(text, place):
    return "#" in text[text.rfind("\n", 0, place) + 1 : place]


MUTATIONS = {
    "drop a line": (_drop_line, 0.25),
    "misspell": (_misspell, 0.6),
    "wrong type": (_wrong_type, 0.8),
    "out of range": (_out_of_range, 0.85),
    "unbalance": (_unbalance, 0.95),
    "noise": (_noise, 0.5),
    "cut": (_cut, 0.95),
}
