"""The faults, one function each."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import redis

from tests.conftest import wait_until

from .ledger import Expected
from .strangers import foreign_words, refused_command, wrong_type
from .world import CIRCLE, FREEZE_SECONDS, Fault, World

KILL_BOUND, RETURN_BOUND = 15.0, 5.0  # seconds: what is promised
RABBITMQ_KILL_BOUND = (
    20.0  # there, what comes back waits behind `--buffer` messages, too: 4 s with one tree under this load
)

DIED = Expected("error", "The worker process died")


def kill_worker(world: World) -> None:
    world.kill(world.random.choice(world.tree().workers()))


def kill_bridge(world: World) -> None:
    world.kill(world.tree().bridge())
    world.takes()


def kill_supervisor(world: World) -> None:
    """Its children stop at once and give back what they run; a launcher starts another."""
    tree = world.tree()
    pids, since = tree.pids(), time.monotonic()
    children = tree.worker.children()
    world.kill(pids[0])
    tree.worker.process.wait()
    psutil.wait_procs(children, timeout=10.0)
    world.excuse("its supervisor was killed", pids, since=since, deadly=False)
    tree.start()


def kill_tree(world: World, meanwhile: Callable[[], None] = lambda: None) -> None:
    """All of it at once, and another started in its place."""
    tree = world.tree()
    pids, since = tree.pids(), time.monotonic()
    tree.kill()
    meanwhile()
    world.excuse("killed", pids, since=since)
    tree.start()


def freeze_worker(world: World) -> None:
    world.freeze([world.random.choice(world.tree().workers())], FREEZE_SECONDS)


def freeze_bridge(world: World) -> None:
    world.freeze([world.tree().bridge()], FREEZE_SECONDS)
    world.takes()


def freeze_supervisor(world: World) -> None:
    """Nobody restarts what dies meanwhile; the rest goes on."""
    tree = world.tree()
    os.kill(tree.pids()[0], signal.SIGSTOP)
    world.kill(world.random.choice(tree.workers()))
    time.sleep(FREEZE_SECONDS)
    os.kill(tree.pids()[0], signal.SIGCONT)


def freeze_tree(world: World) -> None:
    world.freeze(world.tree().pids(), FREEZE_SECONDS)


def rolling_restart(world: World) -> None:
    """Each tree stopped as a launcher does it, and started again."""
    for tree in world.trees:
        world.stop(tree)
        tree.start()


def _away(world: World, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
    with world.server_lock:
        world.server.terminate()
        meanwhile()
        time.sleep(seconds)
        world.server.start()
    world.all_resume()


def kill_server(world: World) -> None:
    _away(world, 2.0)


def kill_server_longer_than_leases(world: World) -> None:
    _away(world, FREEZE_SECONDS)


def kill_server_everysec(world: World) -> None:
    """What it had not synced to the disk is lost with it, as in a power cut: its last second."""

    def lose() -> None:
        # SIGKILL alone loses nothing that was written: the page cache outlives the process.
        newest = _appended(world)
        os.truncate(newest, synced if newest == file else 0)  # another one has begun since

    world.persistently(lambda client: client.config_set("appendfsync", "everysec"))
    time.sleep(1.5)
    since = time.monotonic() - 2.0  # for so long a write waits for a disk that is busy
    file = _appended(world)
    synced = file.stat().st_size
    time.sleep(1.0)
    _away(world, 2.0, lose)
    world.excuse("the server lost it", None, since=since, deadly=False)
    world.persistently(lambda client: client.config_set("appendfsync", "always"))


def _appended(world: World) -> Path:
    """Find the file that the server appends to."""
    files = Path(world.server.data_dir).glob("appendonlydir/*.incr.aof")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def slow_loading(world: World) -> None:
    """Back, it says for some seconds nothing but that it is loading its data."""
    time.sleep(3.0)  # until there is enough to load
    # It answers often while it loads keys, seldom while it repeats commands.
    world.persistently(lambda client: client.bgrewriteaof())
    wait_until(lambda: _has_rewritten(world), within=60.0, what="the rewrite of its file")
    slowly = {"key-load-delay": "10000", "loading-process-events-interval-bytes": "1024"}  # microseconds for each key
    with world.server_lock, ThreadPoolExecutor() as beside:
        world.server.terminate()
        world.server._config |= slowly
        returns = beside.submit(world.server.start, timeout=60.0)
        wait_until(lambda: _is_loading(world) or returns.done(), what="the server to say that it is loading")
        assert not returns.done(), f"it never said so; its start: {returns.exception()!r}"
        time.sleep(3.0)
        world.persistently(lambda client: client.config_set("key-load-delay", "0"))
        returns.result()
        for name in slowly:
            del world.server._config[name]
    world.all_resume()


def _has_rewritten(world: World) -> bool:
    persistence = world.client.info("persistence")
    return not persistence["aof_rewrite_in_progress"] and not persistence["aof_rewrite_scheduled"]


def _is_loading(world: World) -> bool:
    with world.connect() as client:
        try:
            client.ping()
        except redis.exceptions.BusyLoadingError:
            return True
        except redis.RedisError:
            pass
    return False


def primary_killed(world: World) -> None:
    """What it had not sent to its replica is lost with it; it comes back as the new one's replica."""
    since = time.monotonic() - 2.0
    world.server.terminate()
    world.await_other_primary()
    world.all_resume()
    world.server.start()
    world.excuse("the server lost it", None, since=since, deadly=False)


def fail_over(world: World) -> None:
    """The primary hands over, and becomes a replica with all its connections: nothing is lost on the way."""
    assert world.sentinel
    world.sentinel.fail_over()
    world.await_other_primary()
    world.all_resume()
    time.sleep(5.0)


def kill_rabbitmq(world: World) -> None:
    """It comes back with what it has confirmed; its boot takes some seconds, which are not ours."""
    world.rabbitmq.kill()
    time.sleep(2.0)
    world.rabbitmq.start()
    world.all_resume()


def stall_rabbitmq(world: World) -> None:
    """Longer than clients wait for a heartbeat: they give their connections up, and new ones stall, too."""
    world.rabbitmq.freeze(FREEZE_SECONDS)
    world.all_resume()


def stall_server(world: World) -> None:
    """It accepts commands and does not answer, longer than leases last."""
    with world.server_lock:
        pid = world.server._process.pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(FREEZE_SECONDS)
        os.kill(pid, signal.SIGCONT)
    world.all_resume()


def debug_sleep(world: World) -> None:
    with world.server_lock:
        world.persistently(lambda client: client.execute_command("DEBUG", "SLEEP", "3"))
    world.all_resume()


def client_pause(world: World) -> None:
    """Longer than leases last."""
    with world.server_lock:
        world.persistently(lambda client: client.client_pause(int(FREEZE_SECONDS * 1000), all=True))
        time.sleep(FREEZE_SECONDS)
    world.all_resume()


def client_kill(world: World) -> None:
    for _ in range(10):
        world.persistently(lambda client: client.client_kill_filter(_type="normal", skipme=True))
        time.sleep(0.2)
    world.all_resume()


def out_of_memory(world: World) -> None:
    """Writes are refused for longer than leases last."""
    world.persistently(lambda client: client.config_set("maxmemory", "1"))
    time.sleep(FREEZE_SECONDS)
    world.persistently(lambda client: client.config_set("maxmemory", "0"))
    world.all_resume()


def flush_scripts(world: World) -> None:
    for _ in range(20):
        world.persistently(lambda client: client.script_flush())
        time.sleep(0.1)
    world.all_resume()


def drop_connections(world: World) -> None:
    for _ in range(10):
        world.proxy.drop()
        time.sleep(0.2)
    world.resumes(world.trees[0].workers())


def cut_replies(world: World) -> None:
    for _ in range(20):
        world.proxy.cut_replies(2)
        time.sleep(0.2)
    world.resumes(world.trees[0].workers())


def delay_everything(world: World) -> None:
    world.proxy.delay = 0.3
    time.sleep(5.0)
    world.proxy.delay = 0.0


def black_hole(world: World) -> None:
    """Longer than leases last: the other tree takes over what this one holds."""
    pids, since = world.trees[0].pids(), time.monotonic()
    world.proxy.black_hole = True
    time.sleep(FREEZE_SECONDS)
    world.proxy.black_hole = False
    world.excuse("cut off", pids, since=since)
    world.resumes(world.trees[0].workers())


def silent_connections(world: World) -> None:
    """A firewall forgot them: nothing comes back, and nobody says so."""
    world.proxy.silence()
    world.resumes(world.trees[0].workers())
    time.sleep(10.0)  # until it has noticed: there must be something left to do then


def guests(world: World) -> None:
    """Scripts that end their process, grow without end, and never end."""
    begin = 'let run = begin("TASK");'
    time_limit = Expected("error", "time limit")
    memory_limit = Expected("error", "memory limit")
    world.load.crashing += world.load.submit([(f"{begin} crash()", DIED)])
    world.load.submit(
        [
            (f'{begin} let s = "x"; loop {{ s += s; }}', memory_limit),
            (f"{begin} let a = []; loop {{ a.push(a.len()); }}", memory_limit),
            (f"{begin} loop {{}}", time_limit),
            (f"{begin} sleep(1000)", time_limit),
        ]
    )
    time.sleep(8.0)


def clock_back(world: World) -> None:
    """A tree is killed, and the server's clock jumps back by a minute: by it the leases of the dead last that long."""
    kill_tree(world, meanwhile=lambda: world.clock.jump(-60.0))


def unread_log(world: World) -> None:
    """A launcher spawns a tree with a pipe that it never reads; the pipe is full, and a worker is killed."""
    tree = world.tree()
    world.stop(tree)
    tree.start(unread_log=True)
    time.sleep(3.0)  # until it runs something
    killed, other = tree.workers()
    since = time.monotonic()
    world.kill(killed)
    try:
        wait_until(lambda: tree.is_complete() and killed not in tree.workers(), within=KILL_BOUND)
    except AssertionError:
        world.hangs("a supervisor that has to start another worker")
    else:
        world.resumes([*set(tree.workers()) - {other}], since=since)
        time.sleep(2.0)
    world.stop(tree)
    tree.start()


def clocks(world: World) -> None:
    """One tree's clock is five minutes wrong, always; here nothing else happens."""
    time.sleep(5.0)


def log_disk_full(world: World) -> None:
    """A tree whose log cannot be written any more."""
    tree = world.trees[1]
    world.stop(tree)
    tree.log = type(tree.log)("/dev/full")
    tree.start()
    time.sleep(3.0)  # until it runs something
    since, killed = time.monotonic(), tree.workers()[0]
    world.kill(killed)  # so that there is something to say
    wait_until(lambda: tree.workers()[0] != killed, what="another worker")
    world.resumes([tree.workers()[0]], since=since)
    time.sleep(5.0)


def original_beside(world: World) -> None:
    """A worker as the original is takes tasks of the same list; it is stopped between two tasks."""
    environment = os.environ | {"CHAOS_RUNS": str(world.folder / "runs"), "CHAOS_LONGEST_TASK": "60"}
    command = [sys.executable, "-m", "tests.chaos.original", str(world.port), CIRCLE]
    original = subprocess.Popen(command, env=environment)
    world.knows_no_rules(original.pid)
    time.sleep(5.0)
    world.resumes([original.pid])
    time.sleep(3.0)
    original.terminate()
    original.wait(3 * world.strain.longest)


FAULTS = [
    Fault("kill-worker", kill_worker, KILL_BOUND),
    Fault("kill-bridge", kill_bridge, KILL_BOUND, setting={"single_tree": True}),
    Fault("kill-supervisor", kill_supervisor, KILL_BOUND),
    Fault("kill-tree", kill_tree, KILL_BOUND),
    Fault("freeze-worker", freeze_worker, KILL_BOUND),
    Fault("freeze-bridge", freeze_bridge, KILL_BOUND, setting={"single_tree": True}),
    Fault("freeze-supervisor", freeze_supervisor, KILL_BOUND),
    Fault("freeze-tree", freeze_tree, KILL_BOUND),
    Fault("rolling-restart", rolling_restart),
    Fault("kill-server", kill_server, RETURN_BOUND, "server"),
    Fault("kill-server-long", kill_server_longer_than_leases, RETURN_BOUND, "server"),
    Fault("kill-server-everysec", kill_server_everysec, RETURN_BOUND, "server"),
    Fault("slow-loading", slow_loading, RETURN_BOUND, "server"),
    Fault("kill-primary", primary_killed, RETURN_BOUND, "alone", {"replicated": True}),
    Fault("fail-over", fail_over, RETURN_BOUND, "alone", {"replicated": True}),
    Fault("stall-server", stall_server, RETURN_BOUND, "server"),
    Fault("debug-sleep", debug_sleep, RETURN_BOUND, "server"),
    Fault("client-pause", client_pause, RETURN_BOUND, "server"),
    Fault("client-kill", client_kill, RETURN_BOUND, "server"),
    Fault("out-of-memory", out_of_memory, RETURN_BOUND, "server"),
    Fault("script-flush", flush_scripts, RETURN_BOUND, "server"),
    Fault("kill-rabbitmq", kill_rabbitmq, RETURN_BOUND, "rabbitmq"),
    Fault("stall-rabbitmq", stall_rabbitmq, RETURN_BOUND, "rabbitmq"),
    Fault("drop", drop_connections, RETURN_BOUND, "network"),
    Fault("cut", cut_replies, RETURN_BOUND, "network"),
    Fault("delay", delay_everything, None, "network"),
    Fault("black-hole", black_hole, KILL_BOUND, "network"),
    Fault("silence", silent_connections, KILL_BOUND, "network"),
    Fault("guests", guests),  # who died beside one twice waits until it can run alone: justice takes its time
    Fault("refused-command", refused_command, RETURN_BOUND, "server"),
    Fault("wrong-type", wrong_type, RETURN_BOUND, "server"),
    Fault("foreign-words", foreign_words),
    Fault("clock-back", clock_back, KILL_BOUND, "server"),
    Fault("unread-log", unread_log, KILL_BOUND),
    Fault("clocks", clocks, None, "alone"),
    Fault("log-disk-full", log_disk_full, KILL_BOUND, "alone"),
    Fault("original-beside", original_beside, KILL_BOUND, "alone"),
]
