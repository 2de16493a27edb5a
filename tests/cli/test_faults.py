"""Real processes under load while what they stand on fails: ops store, disk, clock, and operate itself."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from adapters.model_store import ModelStore
from adapters.prediction_log import Prediction, read
from lifecycle.aliases import Alias, registry_name
from lifecycle.rollout import Stage
from tests.cli.hand_made import ALSO_GOOD, FAILING, GOOD, SLOW, Load, World, operating, register
from tests.cli.test_serve import Running, serving

pytestmark = [pytest.mark.slow, pytest.mark.requirement("R4.1", "R5.7", "R8.1")]
GONE_S = 20.0
"""How long the ops store is away; the waits between two tries have long reached their longest by then."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return register(tmp_path_factory.mktemp("registry") / "mlflow")


@pytest.fixture
def world(tmp_path: Path, database: Path) -> World:
    return World.make(tmp_path / "world", database)


def missing(what: str) -> None:
    """Skip what cannot be tried here; where everything has to be, fail."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(what)
    pytest.skip(what)


def entries(world: World) -> Counter[str]:
    """How often each request is on record; shadows are nobody's answer."""
    found = (entry.record for entry in read(world.place.var / "serving" / "log"))
    return Counter(one.request_id for one in found if isinstance(one, Prediction) and one.role != "shadow")


def nothing_acknowledged_is_lost(world: World, load: Load) -> None:
    found = entries(world)
    assert max(found.values()) == 1
    assert load.acknowledged <= set(found)


def settled(world: World, seconds: float = 60) -> None:
    """Wait until what is on record, what is served and what is mirrored agree."""
    until = time.monotonic() + seconds
    while True:
        change = world.current()
        table = ModelStore(world.place.var / "serving").table("churn")
        mirrored = world.registry.aliases("churn")
        held = {registry_name("development", alias): version for alias, version in world.ops.aliases("churn").items()}
        agreed = table is not None and (table.routing.generation, table.routing.weights) == (
            change.generation, dict(change.weights),
        )  # fmt: skip
        if agreed and mirrored == held:
            return
        assert time.monotonic() < until, (change, table, mirrored, held, world.told)
        time.sleep(0.1)


# operate itself


def test_operate_killed_at_any_moment_leaves_nothing_that_the_next_does_not_set_right(world: World):
    world.deploy(GOOD)
    world.carry_out()
    chance = random.Random(0)
    with serving(world.place) as gateway, Load(gateway.address).running() as load:
        for version in (ALSO_GOOD, FAILING):
            world.told.clear()
            with operating(world, gateway.address) as process:
                world.wait_told("operating development every")
                world.deploy(version)
                time.sleep(chance.uniform(0.5, 2.5))
                process.kill()
            with operating(world, gateway.address):
                world.wait(version, Stage.LIVE)
                settled(world)
            assert world.ops.aliases("churn")[Alias.CHAMPION] == version
            stages = [one.state.stage for one in world.rollouts.history("churn") if one.state.candidate == version]
            assert stages == [Stage.LIVE, Stage.CANARY, Stage.SHADOW]
    assert load.statuses() == {200}
    nothing_acknowledged_is_lost(world, load)


def test_two_operate_processes_do_no_harm(world: World):
    world.deploy(GOOD)
    world.carry_out()
    with (
        serving(world.place) as gateway,
        operating(world, gateway.address),
        operating(world, gateway.address),
        Load(gateway.address).running() as load,
    ):
        world.deploy(FAILING)
        world.wait(FAILING, Stage.LIVE)
        load.bad = True
        world.wait(FAILING, Stage.ROLLED_BACK)
        settled(world)
    stages = [one.state.stage for one in reversed(world.rollouts.history("churn"))]
    assert stages == [Stage.LIVE, Stage.SHADOW, Stage.CANARY, Stage.LIVE, Stage.ROLLED_BACK]
    audited = [one.action for one in world.ops.audit_trail("churn") if one.action.startswith("rollout")]
    assert len(audited) == len(stages)
    assert not any("Traceback" in line or "locked" in line for line in world.told)


# The ops store


@dataclass
class Proxy:
    """Stands between operate and its database; `cut` refuses everybody, and counts who tried."""

    target: int
    port: int = 0
    tries: int = 0
    cut: bool = False
    _open: list[socket.socket] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            yield self
            self.sever()
            listener.shutdown(socket.SHUT_RDWR)

    def sever(self) -> None:
        """End what is open, as a server that dies does."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.tries += 1
                if self.cut:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.target))
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65_536):
                sink.sendall(content)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.mark.postgres
def test_an_ops_store_that_is_gone_under_load_stops_no_answer_and_is_tried_without_haste(
    tmp_path: Path, database: Path, postgres_url: str
):
    url = sa.engine.make_url(postgres_url)
    assert url.port is not None
    with Proxy(url.port).running() as proxy:
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        world = World.make(tmp_path / "world", database, ops_url=through)
        world.deploy(GOOD)
        world.carry_out()
        with (
            serving(world.place) as gateway,
            operating(world, gateway.address),
            Load(gateway.address).running() as load,
        ):
            world.deploy(FAILING, live=True)
            world.wait_told("version 3: live (read back")
            proxy.cut, proxy.tries = True, 0
            proxy.sever()
            load.bad = True  # it turns bad while nobody can put on record that it is taken back
            world.wait_told("nothing is judged meanwhile")
            time.sleep(GONE_S)
            assert proxy.tries <= GONE_S  # the waits: 0.4, 0.8, 1.6, 3.2, then 5 s
            answers = set(load.statuses())
            proxy.cut = False
            back = time.monotonic()
            world.wait_told("the ops store answers again")
            world.wait_told("version 3: rolled_back (read back from the gateway)")
            assert time.monotonic() - back < 60
            assert len([line for line in world.told if "nothing is judged meanwhile" in line]) == 1
        assert answers == {200, 500}  # what the version itself failed; the gateway asks no ops store
        nothing_acknowledged_is_lost(world, load)
        assert len(set(entries(world))) == len(load.answered)  # failures too are on record


# The disk under the prediction log


@pytest.fixture
def small_disk(world: World) -> Iterator[Path]:
    """A disk of 1 MiB under the prediction log."""
    folder = world.place.var / "serving" / "log"
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        missing("no file system can be mounted; accepted: root, and the right to mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("answer_unrecorded", [False, True])
def test_a_full_disk_is_answered_as_the_policy_says_and_recovers_by_itself(
    world: World, small_disk: Path, answer_unrecorded: bool
):
    world.deploy(GOOD)
    world.carry_out()
    options = ["--answer-unrecorded"] if answer_unrecorded else []
    with serving(world.place, *options) as gateway, Load(gateway.address).running() as load:
        wait_for(load, {200})
        filler = small_disk / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            file.write(b"0" * 2_000_000)
        with contextlib.suppress(OSError):  # to the last byte
            filler.open("ab").write(b"0")
        if answer_unrecorded:
            time.sleep(2)
            unrecorded = metric(gateway, "prodecks_unrecorded_total")
            assert unrecorded > 0
            assert load.statuses() == {200}
        else:
            wait_for(load, {200, 503})
        during = len(load.answered)
        while len(load.answered) < during + 100:
            time.sleep(0.05)
        filler.unlink()
        back = len(load.answered)
        until = time.monotonic() + 30
        while not any(status == 200 for _, status, _ in load.answered[back + 5 :]):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)
    assert {status for _, status, _ in load.answered[-20:]} == {200}
    found = entries(world)
    assert max(found.values()) == 1
    lost = load.acknowledged - set(found)
    if answer_unrecorded:
        assert lost  # the price of that policy, and counted
    else:
        assert lost == set()
        assert load.statuses() == {200, 503}


def wait_for(load: Load, statuses: set[int], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not statuses <= load.statuses():
        assert time.monotonic() < until, load.statuses()
        time.sleep(0.05)


def metric(gateway: Running, name: str) -> float:
    import httpx

    lines = httpx.get(f"{gateway.address}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_a_disk_that_fails_under_load_refuses_and_loses_nothing_that_was_answered(world: World):
    """Every fdatasync of the gateway answers EIO for a while."""
    control = shutil.which("fiu-ctrl")
    if control is None:
        missing("fiu-ctrl not found; accepted: Debian's fiu-utils")
    world.deploy(GOOD)
    world.carry_out()
    fifo = world.place.folder / "fiu"
    world.place.extra |= {
        "LD_PRELOAD": "/usr/lib/fiu/fiu_run_preload.so:/usr/lib/fiu/fiu_posix_preload.so",
        "FIU_CTRL_FIFO": str(fifo),
    }

    def tell(pid: int, *command: str) -> None:
        subprocess.run([str(control), "-f", str(fifo), *command, str(pid)], check=True, timeout=20)

    with serving(world.place) as gateway, Load(gateway.address).running() as load:
        wait_for(load, {200})
        pid = gateway.process.pid
        tell(pid, "-c", "enable name=posix/io/sync/fdatasync,failinfo=5")
        wait_for(load, {200, 503})
        time.sleep(3)
        failing = load.answered[-50:]
        tell(pid, "-c", "disable name=posix/io/sync/fdatasync")
        back = len(load.answered)
        until = time.monotonic() + 30
        while not any(status == 200 for _, status, _ in load.answered[back:]):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)
    assert {status for _, status, _ in failing} == {503}
    assert {status for _, status, _ in load.answered[-20:]} == {200}
    nothing_acknowledged_is_lost(world, load)


# Clocks


def test_clocks_that_are_moved_promote_and_roll_back_nobody_and_lose_no_record(world: World):
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        missing("libfaketime not found; accepted: Debian's faketime")
    clock = world.place.folder / "clock"
    clock.write_text("+0")
    world.place.extra |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    world.deploy(GOOD)
    world.carry_out()
    with (
        serving(world.place) as gateway,
        operating(world, gateway.address),
        Load(gateway.address).running() as load,
    ):
        world.deploy(FAILING)
        world.wait(FAILING, Stage.LIVE)
        for moved in ("+1d", "-1d", "+400d", "+0"):
            clock.write_text(moved)
            time.sleep(3)
            assert world.stage() == (FAILING, Stage.LIVE)
        clock.write_text("-2h")
        time.sleep(2)
        load.bad = True
        world.wait_told("version 3: rolled_back (read back from the gateway)")
    assert load.statuses() == {200, 500}
    nothing_acknowledged_is_lost(world, load)
    assert len(set(entries(world))) == len(load.answered)


# Switching


def test_switches_under_load_drop_none_of_twenty_thousand_requests(world: World):
    world.deploy(GOOD)
    world.carry_out()
    with (
        serving(world.place) as gateway,
        operating(world, gateway.address),
        Load(gateway.address, threads=6, pause=0).running() as load,
    ):
        for version in (ALSO_GOOD, FAILING, SLOW):
            world.deploy(version, "blue_green")
            world.wait(version, Stage.LIVE)
            settled(world)
        until = time.monotonic() + 240
        while len(load.answered) < 20_000:
            assert time.monotonic() < until, len(load.answered)
            time.sleep(0.2)
    assert load.statuses() == {200}
    nothing_acknowledged_is_lost(world, load)
    served = Counter(
        entry.record.version
        for entry in read(world.place.var / "serving" / "log")
        if isinstance(entry.record, Prediction) and entry.record.role != "shadow"
    )
    assert set(served) == {GOOD, ALSO_GOOD, FAILING, SLOW}
