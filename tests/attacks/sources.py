"""Run broken and mixed scripts, made of those of the conformance suite, under limits.

python -m tests.attacks.sources SEED SCRIPTS: prints how many ended how; what runs when the process dies is the last
line of stderr. A panic ends it with an error.
"""

import json
import random
import re
import sys
from collections import Counter

from rhai_tasks.engine import Engine, Limits
from rhai_tasks.errors import RhaiError, RhaiPanic
from tests.conformance.chapters import read

MIB = 1024 * 1024
TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
WORDS = ["fn", "loop", "try", "catch", "throw", "switch", "this", "let", "const", "import", "export", "eval", "call"]
LOOSE = [*'{}()[]`"', "#{", "|x|", "=>", "${", "..", "?.", "??", "()", "9223372036854775807", " -1 ", " 0.0 "]
LOOSE += [f" {word} " for word in WORDS]
WRAPPERS = [
    "{}\n;{}",
    "fn wrapped() {{ {} }} wrapped(); {}",
    "[1, 2].map(|x| {{ {} }}); {}",
    "try {{ {} }} catch (e) {{ {} }}",
    "for i in 0..20 {{ {} }} {}",
    "loop {{ {} }} {}",
    "let f = || {{ {} }}; f.call(); {}",
    "switch 1 {{ 1 => {{ {} }} _ => {{ {} }} }}",
]


def mixed(sources: list[str], chance: random.Random) -> str:
    """Put two scripts together, and break the whole in a few places."""
    whole = chance.choice(WRAPPERS).format(chance.choice(sources), chance.choice(sources))
    tokens, other = TOKEN.findall(whole), TOKEN.findall(chance.choice(sources))
    for _ in range(chance.randrange(3)):
        place, width = chance.randrange(len(tokens) + 1), chance.randint(1, 6)
        match chance.randrange(5):
            case 0:
                del tokens[place : place + width]
            case 1:
                tokens[place:place] = tokens[place : place + width] * chance.randint(1, 30)
            case 2:
                start = chance.randrange(len(other) + 1)
                tokens[place : place + width] = other[start : start + 2 * width]
            case 3:
                tokens.insert(place, chance.choice(LOOSE))
            case _:
                tokens.insert(place, chr(chance.choice([0, 10, 34, 92, 0xE9, 0x1F980, chance.randrange(1, 0xD800)])))
    return "".join(tokens)


def main(seed: int, scripts: int) -> None:
    """Run that many."""
    chance = random.Random(seed)
    sources = [case.script for chapter in read() for case in chapter.cases]
    engine = Engine(limits=Limits(timeout=0.1, max_memory=16 * MIB, max_operations=20_000))
    ends: Counter[str] = Counter()
    for _ in range(scripts):
        source = mixed(sources, chance)
        print(repr(source), file=sys.stderr, flush=True)
        try:
            engine.run(source, print=str, debug=lambda *_: None)
            ends["well"] += 1
        except RhaiPanic as error:
            sys.exit(f"a panic: {error}")
        except RhaiError as error:
            ends[type(error).__name__] += 1
    print(json.dumps(ends))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
