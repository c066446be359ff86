"""Run scripts that a grammar makes: small ones of every kind of statement and expression, about few names.

python -m tests.attacks.grammar SEED SCRIPTS: prints each kind of panic with the first script that provoked it, and last
how many scripts ended how. What runs when the process dies is the last line of stderr.
"""

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable

from rhai_tasks.engine import Engine, Function, Limits
from rhai_tasks.errors import RhaiError, RhaiPanic

MIB = 1024 * 1024
NAMES = ["a", "b", "M", "N", "x"]
KEYS = ["a", "b", "len", "foo"]
INTEGERS = ["0", "1", "2", "-1", "-2", "63", "64", "-64", "-65", "9223372036854775807", "-9223372036854775808"]
LEAVES = [
    *("true", "false", "()", "'x'", '"aé🦀"', '""', "1.5", "0.0/0.0", "[]", "#{}", "blob(3, 7)", "0..3"),
    *("1..=2", "-2..=-1", "2..0", "Fn('f')", 'Fn("f")', "timestamp()", "|x| x", "|| M", "`${a}b${1}`", '[1, "b", [2]]'),
    *('#{a: 1, "b": [1, #{a: 2}]}', 'parse_decimal("1.5")', "9223372036854775807..", "..3"),
]
OPERATORS = "+ - * / % ** << >> & | ^ == != < <= > >= && || ?? in !in .. ..=".split()  # noqa: SIM905
ASSIGNMENTS = "= = = += -= *= /= %= **= <<= >>= &= |= ^=".split()  # noqa: SIM905
DEPTH = 4


class Grammar:
    """Makes scripts."""

    def __init__(self, chance: random.Random, functions: list[Function]) -> None:
        self.chance, self.depth, self.in_function = chance, 0, False
        names = {function.name for function in functions if re.fullmatch(r"\w+", function.name)} - {"sleep", "exit"}
        self.functions = [*sorted(names), "f", "g", "type_of", "is_shared", "is_def_var", "is_def_fn", "eval", "Fn"]
        self.functions += ["call", "curry", "f", "g", "f", "g"]

    def nested(self, forms: list[Callable[[], str]], plain: Callable[[], str]) -> str:
        """Make one of the forms, or a plain one where all is deep enough."""
        if self.depth >= DEPTH:
            return plain()
        self.depth += 1
        made = self.chance.choice(forms)()
        self.depth -= 1
        return made

    def name(self) -> str:
        return self.chance.choice(NAMES)

    def variable(self) -> str:
        return "this" if self.in_function and self.chance.random() < 0.2 else self.name()

    def condition(self) -> str:
        """Make an expression that the parser does not refuse as a condition."""
        return self.chance.choice(["true", "false", self.name(), f"({self.expression()} == {self.expression()})"])

    def leaf(self) -> str:
        return self.chance.choice([self.variable, self.variable, lambda: self.chance.choice(INTEGERS), self.constant])()

    def constant(self) -> str:
        return self.chance.choice(LEAVES)

    def expression(self) -> str:
        one = self.expression
        return self.nested(
            [
                self.leaf,
                self.leaf,
                self.place,
                self.place,
                self.call,
                lambda: f"({one()} {self.chance.choice(OPERATORS)} {one()})",
                lambda: f"{self.chance.choice('!-+')}({one()})",
                lambda: f"[{one()}, {one()}]",
                lambda: f"#{{a: {one()}, b: {one()}}}",
                lambda: f"`{{${{{one()}}}`",
                lambda: f"{{ {self.statements()} }}",
                lambda: f"if {self.condition()} {{ {self.statements()} }} else {{ {one()} }}",
                lambda: f"|{self.name()}| {one()}",
                lambda: f"|| {{ {self.statements()} }}",
                self.switch,
                lambda: f"eval({json.dumps(self.statements(), ensure_ascii=False)})",
                lambda: f"loop {{ break {one()}; }}",
            ],
            self.leaf,
        )

    def call(self) -> str:
        arguments = ", ".join(self.expression() for _ in range(self.chance.randrange(4)))
        function = self.chance.choice(self.functions)
        return self.chance.choice(
            [f"{function}({arguments})", f"{self.place()}.{function}({arguments})", f"{function}!()"]
        )

    def items(self) -> str:
        """Make an expression that the parser does not refuse as what a loop iterates over."""
        forms: list[Callable[[], str]] = [self.name, self.place, self.call, lambda: "[1, 2]", lambda: "0..9"]
        return self.chance.choice(forms)()

    def place(self, start: str = "") -> str:
        """Make a chain of properties and indices."""
        starts: list[Callable[[], str]] = [self.variable, self.variable, self.constant, self.call_of_place]
        chain = start or self.chance.choice(starts)()
        for _ in range(self.chance.randrange(1, 4)):
            links: list[Callable[[], str]] = [
                lambda: f".{self.chance.choice(KEYS)}",
                lambda: f"?.{self.chance.choice(KEYS)}",
                lambda: f"[{self.chance.choice(INTEGERS)}]",
                lambda: f"[{self.chance.choice(LEAVES)}]",
                lambda: f"?[{self.expression()}]",
                lambda: f'["{self.chance.choice(KEYS)}"]',
                lambda: f"[{self.expression()}]",
            ]
            chain += self.chance.choice(links)()
        return chain

    def call_of_place(self) -> str:
        return self.nested([self.call], self.name)

    def exit(self) -> str:
        return self.chance.choice(["break", "continue"])

    def switch(self) -> str:
        cases = "".join(
            f"{case}{self.chance.choice(['', '', f' if {self.condition()}'])} => {self.expression()}, "
            for case in self.chance.sample(["1", "'x'", '"a"', "()", "1 | 2", "#{}", "[]", "true"], 3)
        )
        return f"switch {self.expression()} {{ {cases}0..3 => {self.leaf()}, _ => {self.expression()} }}"

    def statements(self) -> str:
        return "; ".join(self.statement() for _ in range(self.chance.randint(0, 3)))

    def statement(self) -> str:
        one, some = self.expression, self.statements
        return self.nested(
            [
                one,
                lambda: f"let {self.name()} = {one()}",
                lambda: f"const {self.name()} = {one()}",
                lambda: f"const {self.name()} = {one()}",
                lambda: f"{self.name()} {self.chance.choice(ASSIGNMENTS)} {one()}",
                lambda: f"{self.place(self.variable())} {self.chance.choice(ASSIGNMENTS)} {one()}",
                lambda: f"{self.place(self.variable())} {self.chance.choice(ASSIGNMENTS)} {one()}",
                lambda: f"if {self.condition()} {{ {some()} }} else {{ {some()} }}",
                lambda: f"if {self.condition()} {{ {some()} }} else if {self.condition()} {{ {some()} }}",
                lambda: f"if {self.condition()} {{ if {self.condition()} {{ {some()} }} }}",
                lambda: f"while {self.condition()} {{ {some()} }}",
                lambda: f"do {{ {some()} }} {self.chance.choice(['while', 'until'])} {self.condition()}",
                lambda: f"loop {{ {some()}; break; }}",
                lambda: f"for {self.name()} in {self.items()} {{ {some()} }}",
                lambda: f"for ({self.name()}, i) in {self.items()} {{ {some()}; {self.exit()} }}",
                lambda: f"try {{ {some()}; throw {one()} }} catch ({self.name()}) {{ {some()} }}",
                lambda: f"return {one()}",
                lambda: f"throw {one()}",
                lambda: f'import "a" as {self.name()}',
                lambda: f"{{ {some()} }}",
                self.switch,
            ],
            self.leaf,
        )

    def script(self) -> str:
        """Make a script of a few declarations, functions and statements."""
        chance = self.chance
        parts = [f"{chance.choice(['let', 'const'])} {name} = {self.constant()}" for name in NAMES[:3]]
        self.in_function = True
        functions = [f"fn {name}({', '.join(NAMES[:n])}) {{ {self.statements()} }}" for n, name in enumerate("fg")]
        self.in_function = False
        exports = ["export let b = 1", "export const M = #{a: 1}", "export a as x"]
        parts += [self.statement() for _ in range(chance.randint(1, 3))] + chance.sample(exports, chance.randrange(2))
        return "; ".join(
            [*chance.sample(functions, chance.randrange(3)), *chance.sample(parts, len(parts)), self.leaf()]
        )


def main(seed: int, scripts: int) -> None:
    """Run that many."""
    chance = random.Random(seed)
    engine = Engine(limits=Limits(timeout=0.1, max_memory=16 * MIB, max_operations=2_000), modules={"a": "let b = 1;"})
    grammar = Grammar(chance, engine.functions())
    ends: Counter[str] = Counter()
    for _ in range(scripts):
        source = grammar.script()
        print(repr(source), file=sys.stderr, flush=True)
        try:
            engine.run(source, constants={"N": {"a": [1, {"b": 2}]}}, print=str, debug=lambda *_: None)
            ends["well"] += 1
        except RhaiPanic as error:
            kind = re.sub(r"\d+", "0", str(error))[:80]
            if not ends[kind]:
                print(f"{error}: {source}")
            ends[kind] += 1
        except RhaiError as error:
            ends[type(error).__name__] += 1
    print(json.dumps(ends))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
