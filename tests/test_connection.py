"""A device over SSH: a real client and a real server, whose network, keys, disk and shell can fail."""

import os
import shutil
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

import ssh_server
from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.targets.ssh import failures
from edgeml.targets.ssh.connection import Connection, ConnectionLost, Unreachable

SHELLS = ("sh", "bash", "zsh", "fish", "tcsh")
MIB = 1 << 20


@pytest.fixture
def device(tmp_path):
    with ssh_server.device(tmp_path) as found:
        yield found


@pytest.fixture
def connection(device):
    with Connection(device.host, options=device.options) as found:
        yield found


def refused(device, **how):
    """What is said where nothing can be run."""
    with Connection(device.host, options=device.options, **how) as connection, pytest.raises(EdgemlError) as caught:
        connection.run("true")
    return caught.value


@pytest.mark.parametrize("shell", [name for name in SHELLS if shutil.which(name)])
def test_a_script_means_the_same_under_any_login_shell(tmp_path, shell):
    script = """for word in 'a  b' "c\\"d" `echo e` "$HOME" '\\f' '!!' é '%s' '*'
do printf '%s|' "$word"; done # not: done"""
    with (
        ssh_server.device(tmp_path, shell=shutil.which(shell)) as device,
        Connection(device.host, options=device.options) as there,
    ):
        done = there.run(script)

        assert done.err == ""
        assert done.out.decode() == f'a  b|c"d|e|{device.folder}/home|\\f|!!|é|%s|*|'


@pytest.mark.parametrize(("code", "told"), [(0, 0), (3, 3), (255, 254)])
def test_a_scripts_exit_code_is_told_apart_from_sshs_own(connection, code, told):
    assert connection.run(f"echo why >&2; exit {code}").code == told


def test_bytes_go_in_and_come_out_unchanged(connection):
    sent = bytes(range(256)) * 1000

    assert connection.run("cat", input=sent).out == sent


def test_what_a_login_shell_greets_with_is_not_taken_for_the_scripts_words(tmp_path):
    shell = tmp_path / "greeter"
    shell.write_text('#!/bin/sh\necho Welcome to my Pi\nexec sh "$@"\n')
    shell.chmod(0o755)
    with ssh_server.device(tmp_path, shell=shell) as device, Connection(device.host, options=device.options) as there:
        assert there.run("echo x").out == b"x\n"


def test_an_account_without_a_shell_is_refused_in_its_own_words(tmp_path):
    shell = tmp_path / "nologin"
    shell.write_text("#!/bin/sh\necho This account is currently not available.\nexit 1\n")
    shell.chmod(0o755)
    with ssh_server.device(tmp_path, shell=shell) as device:
        assert "This account is currently not available." in refused(device).message


def test_all_calls_share_one_connection_and_closing_ends_it(device, connection):
    for _ in range(3):
        connection.run("true")
    folder = connection._folder

    assert device.connections == 1
    connection.close()
    assert not folder.exists()
    assert connection.run("echo again").out == b"again\n"
    assert device.connections == 2


def test_a_device_never_met_is_refused_until_its_key_is_accepted(device):
    device.forget_host_key()

    error = refused(device)
    assert "never met" in error.message
    assert "--accept-new" in error.hint
    with Connection(device.host, options=device.options, accept_new=True) as connection:
        assert connection.run("echo met").out == b"met\n"
    with Connection(device.host, options=device.options) as connection:
        assert connection.run("echo known").out == b"known\n"


@pytest.mark.parametrize("accept_new", [False, True])
def test_a_changed_host_key_is_always_refused_and_the_hint_forgets_the_old_one(device, accept_new):
    device.change_host_key()

    error = refused(device, accept_new=accept_new)
    assert "another key" in error.message
    assert f"ssh-keygen -R '[127.0.0.1]:{device.port}'" in error.hint


def test_a_key_that_the_device_does_not_know_is_refused(device):
    device.change_user_key()

    assert "takes keys only" in refused(device).hint


def test_a_device_that_wants_a_password_is_refused_at_once_with_how_to_leave_a_key_there(device):
    device.lets_in = "password"

    assert "ssh-copy-id pi@device" in refused(device).hint


@pytest.mark.parametrize(
    ("words", "kind", "sentence"),
    [
        ("ssh: Could not resolve hostname pi.local: Name or service not known", Unreachable, "no device is known"),
        ("ssh: connect to host 10.0.0.7 port 22: No route to host", Unreachable, "no way to"),
        ("ssh: connect to host 10.0.0.7 port 22: Connection timed out", Unreachable, "does not answer"),
        ("ssh: connect to host 10.0.0.7 port 22: Operation timed out", Unreachable, "does not answer"),
        ("Connection timed out during banner exchange", Unreachable, "does not answer"),
        ("kex_exchange_identification: read: Connection reset by peer", ConnectionLost, "was lost"),
        ("Timeout, server 10.0.0.7 not responding.", ConnectionLost, "was lost"),
        ("client_loop: send disconnect: Broken pipe", ConnectionLost, "was lost"),
        ("No ED25519 host key is known for 10.0.0.7 and you have requested strict checking.", EdgemlError, "never met"),
        ("pi@10.0.0.7: Permission denied (publickey,password).", EdgemlError, "lets nobody in"),
        ("Received disconnect from 10.0.0.7: Too many authentication failures", EdgemlError, "lets nobody in"),
        ("/etc/ssh/ssh_config: line 3: Bad configuration option: prot", EdgemlError, "line 3: Bad configuration"),
    ],
)
def test_each_way_to_fail_has_its_own_sentence(words, kind, sentence):
    error = failures.of_client("pi@10.0.0.7", words + "\n", met=False)

    assert type(error) is kind
    assert sentence in error.message


def test_an_address_with_a_port_is_named_in_the_hints_as_other_programs_want_it():
    denied = "Permission denied (publickey,password)."

    assert "ssh-copy-id -p 2222 pi@10.0.0.7" in failures.of_client("ssh://pi@10.0.0.7:2222", denied, met=False).hint
    changed = "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed."
    assert "-R '[10.0.0.7]:2222'" in failures.of_client("ssh://pi@10.0.0.7:2222", changed, met=False).hint


def test_a_port_where_nobody_listens_is_told_from_one_that_never_answers(device):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with Connection(f"ssh://pi@127.0.0.1:{taken.getsockname()[1]}", options=device.options) as connection:
            with pytest.raises(Unreachable, match="takes no SSH"):
                connection.run("true")
            taken.listen()
            connection._more += ["-o", "ConnectTimeout=1"]
            with pytest.raises(Unreachable, match="does not answer"):
                connection.run("true")


def test_a_name_that_nobody_has_is_told(device):
    with (
        Connection("pi@no..where", options=device.options) as connection,
        pytest.raises(Unreachable, match="by the name"),
    ):
        connection.run("true")


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "", "pi@", "pi @device"])
def test_what_cannot_be_a_host_never_reaches_the_client(host):
    with pytest.raises(EdgemlError, match="names no device"):
        Connection(host)


def test_without_an_ssh_client_the_hint_is_to_install_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EdgemlError, match="no ssh client"):
        Connection("pi@device").run("true")


def test_a_folder_that_ssh_could_not_name_a_socket_in_does_no_harm(device, monkeypatch, tmp_path):
    long = tmp_path / ("100% of it " * 9)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    with Connection(device.host, options=device.options) as connection:
        assert connection.run("echo x").out == b"x\n"
        assert connection.run("echo y").out == b"y\n"
    assert device.connections == 1


def test_files_arrive_whole_with_progress_in_bytes(device, connection, tmp_path):
    files = [tmp_path / "a 'quoted' name", tmp_path / "-dash"]
    for number, path in enumerate(files):
        path.write_bytes(os.urandom(MIB * (number + 1)))
    told = []

    connection.send(files, "a folder/it's", progress=lambda *step: told.append(step), step="sending")

    assert [(device.home / "a folder/it's" / path.name).read_bytes() for path in files] == [
        p.read_bytes() for p in files
    ]
    assert told == sorted(told)
    assert told[-1] == ("sending", 3 * MIB, 3 * MIB)


def test_a_slow_link_is_told_byte_by_byte(device, connection, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(os.urandom(4 * MIB))
    connection.run("true")
    device.link.bytes_s = 4 * MIB
    told = []

    connection.send([path], "models", progress=lambda *step: told.append(step[1]), step="sending")

    assert len({amount for amount in told if 0 < amount < 4 * MIB}) >= 2


def test_a_link_cut_while_a_file_travels_leaves_no_half_file_and_can_be_used_again(device, connection, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(os.urandom(4 * MIB))
    connection.run("true")
    device.link.cut_after = MIB

    with pytest.raises(ConnectionLost):
        connection.send([path], "models", progress=silent, step="sending")

    connection.send([path], "models", progress=silent, step="sending")
    assert (device.home / "models/model").read_bytes() == path.read_bytes()
    assert not connection.run("ls models/*.part").out


def test_a_full_disk_is_told_and_what_filled_it_is_gone(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(os.urandom(2 * MIB))
    with (
        ssh_server.device(tmp_path, disk_bytes=MIB) as device,
        Connection(device.host, options=device.options) as there,
    ):
        with pytest.raises(EdgemlError, match="the disk of pi@device is full"):
            there.send([path], "models", progress=silent, step="sending")

        assert there.run("ls models").out == b""


def test_a_folder_that_cannot_be_made_is_told(device, connection):
    (device.home / "models").write_text("a file")

    with pytest.raises(EdgemlError, match="cannot write into models"):
        connection.send([device.folder / "config"], "models", progress=silent, step="sending")


def test_a_file_is_fetched_whole_and_one_that_is_not_there_is_named(device, connection):
    (device.home / "it's there").write_bytes(bytes(range(256)))

    assert connection.fetch("it's there") == bytes(range(256))
    with pytest.raises(EdgemlError, match=r"cannot read nothing on pi@device: .*No such file"):
        connection.fetch("nothing")


def test_a_device_that_reboots_under_a_script_is_a_lost_connection(device, connection):
    os.mkfifo(device.home / "started")
    boot = connection.run("cat /proc/sys/kernel/random/boot_id").out
    with ThreadPoolExecutor() as pool:
        running = pool.submit(connection.run, "echo > started; exec sleep 600")
        (device.home / "started").read_text()
        device.reboot()
        with pytest.raises(ConnectionLost):
            running.result()

    assert not device.running()
    assert connection.run("cat /proc/sys/kernel/random/boot_id").out != boot


def test_a_script_that_takes_too_long_is_given_up(connection):
    with pytest.raises(ConnectionLost, match=r"within 0\.2 s"):
        connection.run("exec sleep 600", timeout_s=0.2)


def test_a_device_that_is_gone_after_it_was_met_is_unreachable_not_a_mystery(device, connection):
    connection.run("true")
    device.link.is_down = True
    device.link.cut()

    with pytest.raises(ConnectionLost):
        connection.run("true")
