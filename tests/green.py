"""Set up a worker as `dramatiq-gevent` does; without gevent, with what dramatiq looks at in its place."""

import importlib
import sys
import types

try:
    importlib.import_module("gevent.monkey").patch_all()
except ImportError:
    gevent = types.ModuleType("gevent")
    gevent.__dict__.update(Timeout=type("Timeout", (BaseException,), {}), getcurrent=object)
    gevent.__dict__["monkey"] = types.SimpleNamespace(saved={"threading": {}})
    sys.modules["gevent"] = gevent

importlib.import_module("rhai_tasks.worker").setup()
