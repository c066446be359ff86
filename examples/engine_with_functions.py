"""An engine with host functions in Python.

Try it with `python -m examples.engine_with_functions`, and let a worker use it:

    rhai-worker --circle-public-key 02abc --engine examples.engine_with_functions:make_engine
"""

from decimal import Decimal

from rhai_tasks import Engine, Limits

PRICES = {"tea": Decimal("2.40"), "cake": Decimal("3.10")}


def make_engine() -> Engine:
    """Make the engine; each worker process calls this once."""
    engine = Engine(limits=Limits(timeout=10.0))

    @engine.function
    def price(item: str, count: int = 1) -> Decimal:
        """Look a price up. A `KeyError` reaches the script, which can catch it."""
        return PRICES[item] * count

    return engine


if __name__ == "__main__":
    print(make_engine().run('price("tea", 2) + price("cake")'))
