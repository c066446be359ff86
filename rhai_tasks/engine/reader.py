"""What can be known of a script, and of the functions that it can call, before it runs."""

from collections.abc import Collection, Iterable

from rhai_tasks.errors import RhaiSyntaxError

from .check import CONSTANTS, Finding, Names, find_mistakes
from .definitions import files
from .evaluation import AST
from .functions import Function, order, standard_functions
from .refusals import refusal
from .registry import Registry


class Reader(Registry):
    """The part of an `Engine` that compiles and checks scripts, and lists what they can call."""

    def compile(self, source: str, *, name: str | None = None, variables: Iterable[str] = ()) -> AST:
        """Compile a script, and return it with its functions.

        Args:
            source: The script.
            name: Name of the script in texts of errors.
            variables: Names of variables and constants that evaluations will give it; a strict engine refuses others.

        Raises:
            RhaiSyntaxError: The script does not compile.
            RhaiTimeout: Compiling takes longer than the limits allow.
            RhaiMemoryLimit: Compiling takes more than eight times `max_memory`.
        """
        if not isinstance(source, str):
            raise refusal("source", source)
        if name is not None and not isinstance(name, str):
            raise refusal("name", name)
        if isinstance(variables, str) or not isinstance(variables, Iterable):
            raise refusal("variables", variables)
        names = list(variables)
        if not all(isinstance(each, str) for each in names):
            raise refusal("variables", names)
        functions = (
            Function(name=name, parameters=tuple(parameters), returns="", doc=doc)
            for name, parameters, doc in self._native.compile(source, name, names)
        )
        return AST(source, name, tuple(sorted(functions, key=order)))

    def functions(self, *, standard: bool = True) -> list[Function]:
        """Return the functions that scripts can call: the host's, then, if `standard`, Rhai's own library."""
        return [*self._additions.listed(), *(standard_functions() if standard else ())]

    def check(self, source: str, constants: Collection[str] = CONSTANTS) -> list[Finding]:
        """Find mistakes in a script without running it.

        Args:
            source: The script.
            constants: Names of the constants that it is given; by default those of a worker.

        Returns:
            A syntax error alone; or unknown functions and variables, and code that never runs. An empty list is no
            proof: types are known only when a script runs.
        """
        if not isinstance(source, str):
            raise refusal("source", source)
        try:
            mentions, functions = self._native.mentions(source), self._native.compile(source, None, list(constants))
        except RhaiSyntaxError as error:
            return [Finding(error.line, error.column, "syntax", str(error))]
        own = [(name, len(parameters)) for name, parameters, _ in functions]
        host = {function.name for function in self.functions(standard=False)}
        host |= {name for cls in self._additions.types.values() for name, *_ in cls.functions}
        return find_mistakes(mentions, Names(host, own, constants))

    def definitions(self) -> dict[str, str]:
        """Return definition files for editors of scripts, and a page of Markdown with the host's functions, by name.

        `__builtin__.d.rhai` defines Rhai's own functions, `__static__.d.rhai` the host's functions, types and modules;
        `functions.md` is the page.
        """
        types = self._additions.types.values()
        return files(self.functions(standard=False), types, self._additions.all_modules())
