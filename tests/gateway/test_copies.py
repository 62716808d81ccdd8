"""Promise: what is queued is sent by one server, whatever copies of its data directory are started: what nobody has
promoted in place of the original sends nothing of it, says so in its log, and goes on with what is queued from then on.
A directory that is moved, a promoted standby, and a cluster that is recovered from an archive take the queue along."""

import os
import pwd
import shutil

import pytest

from cluster import copied
from conftest import Gateway, until

COPY = "this server's data directory is a copy of another one"
OUTCOMES = "SELECT status::text FROM otp_gateway.verification WHERE id = ANY (%s::uuid[]) ORDER BY id"


def backup_of(primary):
    return lambda copy: copy.base_backup(primary)


def files_of(cluster):
    """As they lie there once it has stopped: cp -a."""
    return lambda copy: copy_tree(cluster.data, copy.data)


def copy_tree(source, target):
    shutil.copytree(source, target, symlinks=True)
    if os.geteuid() == 0:
        for path in [target, *target.rglob("*")]:
            os.chown(path, *pwd.getpwnam("postgres")[2:4], follow_symlinks=False)
    target.chmod(0o700)


@pytest.fixture
def queue(own_cluster, simulator):
    """A cluster whose only place at the vendor is taken, so that two more sends are queued."""
    simulator.fault("hold", "ideamart", "send")
    with Gateway(own_cluster, "postgres", simulator) as gateway:
        gateway.execute("CREATE EXTENSION otp_gateway")
        gateway.create_provider("ideamart", max_in_flight="1", timeout="60s")
        gateway.enqueue()
        simulator.held(1)
        gateway.ids = [gateway.enqueue()["verification_id"] for _ in range(2)]
        yield gateway


def lets_go(simulator):
    simulator.clear_faults()
    simulator.release()


def sends_what_is_new(cluster, simulator):
    with Gateway(cluster, "postgres", simulator) as gateway:
        assert gateway.wait(gateway.enqueue()["verification_id"])["outcome"] == "sent"


def test_a_backup_that_is_started_beside_the_original(queue, own_cluster, simulator):
    with copied(backup_of(own_cluster)) as copy:
        copy.start()
        lets_go(simulator)
        with Gateway(copy, "postgres", simulator) as there:
            assert {there.wait(id)["outcome"] for id in queue.ids} == {"invalid_request"}
            assert there.execute(OUTCOMES, (queue.ids,)) == [("failed",), ("failed",)]
        assert {queue.wait(id)["outcome"] for id in queue.ids} == {"sent"}
        assert copy.log().count(COPY) == 1 and COPY not in own_cluster.log()
        sends_what_is_new(copy, simulator)
        # It is at home where it is now.
        copy.restart()
        sends_what_is_new(copy, simulator)
        assert copy.log().count(COPY) == 1
    # Those three, one that was queued in the copy, and one more.
    assert simulator.count("ideamart", "send") == 5


def test_what_is_queued_before_a_worker_has_noted_the_copy(queue, own_cluster, simulator):
    """Whoever queues in a copy seals for the copy."""
    lets_go(simulator)
    assert {queue.wait(id)["outcome"] for id in queue.ids} == {"sent"}
    queue.execute("UPDATE otp_gateway_internal.queue_home SET directory = 'made at 1.000000000'")
    assert queue.wait(queue.enqueue()["verification_id"])["outcome"] == "sent"
    own_cluster.restart()
    sends_what_is_new(own_cluster, simulator)
    assert own_cluster.log().count(COPY) == 1


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_files_that_are_copied(queue, own_cluster, simulator, how):
    """From a disk to another one: who takes the original's place so lets the queue end first."""
    own_cluster.stop(how)
    sent = simulator.count("ideamart", "send")
    with copied(files_of(own_cluster)) as copy:
        lets_go(simulator)
        copy.start()
        with Gateway(copy, "postgres", simulator) as there:
            assert {there.wait(id)["outcome"] for id in queue.ids} == {"invalid_request"}
        assert copy.log().count(COPY) == 1
        assert simulator.count("ideamart", "send") == sent
        sends_what_is_new(copy, simulator)


def test_a_directory_that_is_moved(queue, own_cluster, simulator):
    own_cluster.stop("immediate")
    own_cluster.data = own_cluster.data.rename(own_cluster.directory / "elsewhere")
    lets_go(simulator)
    own_cluster.start()
    queue.session = own_cluster.connect()
    assert {queue.wait(id)["outcome"] for id in queue.ids} == {"sent"}
    assert COPY not in own_cluster.log()


def test_a_cluster_that_is_recovered_from_an_archive(queue, own_cluster, simulator):
    """It begins a timeline of its own, as a promoted standby does: it is there in place of the original."""
    with copied(backup_of(own_cluster)) as copy:
        own_cluster.stop("immediate")
        lets_go(simulator)
        copy.configure({"restore_command": "'false'", "recovery_target_timeline": "'current'"})
        (copy.data / "recovery.signal").touch()
        shutil.chown(copy.data / "recovery.signal", "postgres", "postgres")
        copy.start()
        with Gateway(copy, "postgres", simulator) as there:
            until(lambda: there.execute("SELECT pg_is_in_recovery()") == [(False,)], "it has recovered")
            assert {there.wait(id)["outcome"] for id in queue.ids} == {"sent"}
        assert COPY not in copy.log()
        # A copy of this one is a copy all the same.
        with copied(backup_of(copy)) as second:
            second.start()
            sends_what_is_new(second, simulator)
            assert second.log().count(COPY) == 1
