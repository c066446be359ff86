"""An engine whose scripts can call a function in Python.

Run a script in it with `python -m examples.engine_with_functions`. A worker runs tasks in it with:

    rhai-worker --circle-public-key 02abc --engine examples.engine_with_functions:make_engine
"""

from decimal import Decimal

from rhai_tasks import Engine, Limits

PRICES = {"tea": Decimal("2.40"), "cake": Decimal("3.10")}


def make_engine() -> Engine:
    """Make the engine. Each worker process calls this once."""
    engine = Engine(limits=Limits(timeout=10.0))

    @engine.function
    def price(item: str, count: int = 1) -> Decimal:
        """Return the price of some items. The script can catch the `KeyError` of an unknown one."""
        return PRICES[item] * count

    return engine


if __name__ == "__main__":
    print(make_engine().run('price("tea", 2) + price("cake")'))
