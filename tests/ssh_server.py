"""A device on the network that is really there: a real OpenSSH client, a server in this process, commands that run.

Each device has a home, a folder of programs that come first on its path, and a mount namespace of its own, so that its
disk can be full and its boot id can change. Its network can be cut, slow or dead. `virtual_pi` runs programs for
aarch64 as a Raspberry Pi would run them, by an emulator that its kernel knows of.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncssh
import pytest

USER = "pi"
MARK = "SSH_SERVER_DEVICE"  # in the environment of all that a device runs, so that a reboot finds it
CHUNK = 1 << 16
PI_5 = "Raspberry Pi 5 Model B Rev 1.0"
MEMORY = (
    "MemTotal:        8245392 kB\nMemFree:         7210000 kB\nMemAvailable:    7612000 kB\n"  # of a board with 8 GB
)
# The first 20 bytes of an ELF file for aarch64, and which of them count: as Debian's qemu-user-binfmt registers them.
AARCH64 = (
    r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)


class Device:
    """`host` and `options` are for a Connection; `client` is a folder whose `ssh` needs no options."""

    def __init__(self, folder, *, disk_bytes=None, shell="sh", environment=None, setup=""):
        if missing := [name for name in ("ssh", "unshare", "nsenter") if not shutil.which(name)]:
            pytest.skip(f"no {missing[0]} here, so no device can be made")
        self.folder = folder
        self.host = f"{USER}@device"
        self.options = ("-F", str(folder / "config"))
        self.client = folder / "client"
        self.programs = folder / "programs"
        self.shell = shell
        self.lets_in = "key"  # or "password"
        self.environment = environment or {}
        self.link = Link()
        self.commands = []
        self.connections = 0
        self._asked = set()  # the tasks of all commands that have not ended
        self._id = uuid.uuid4().hex
        self._host_key, self._user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        for made in (self.client, self.programs, folder / "home"):
            made.mkdir(parents=True)
        self._start_machine(disk_bytes, setup)

    @property
    def home(self):
        """Its home, seen from outside."""
        return Path(f"/proc/{self._machine.pid}/root{self.folder}/home")

    def program(self, name, script):
        """Put a program first on the device's path."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def forget_host_key(self):
        """As if the user had never met it."""
        self._known.write_text("")

    def change_host_key(self):
        """As if it had a new system card."""
        self._tell_host_key(asyncssh.generate_private_key("ssh-ed25519"))

    def change_user_key(self):
        """As if the user had another key."""
        self._write_user_key(asyncssh.generate_private_key("ssh-ed25519"))

    def reboot(self):
        """End all that runs on it, and every connection, at once; it answers again at once, under a new boot id."""
        self.link.cut()
        self.kill_all()
        self._new_boot_id()

    def kill_all(self):
        """End all that runs on it now; what is asked of it afterwards runs."""
        asked = set(self._asked)
        while True:
            for pid in self.running():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if all(one.done() for one in asked):  # one that was about to start had no process yet
                return
            time.sleep(0.002)

    def running(self):
        """Ids of all processes that it runs."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if f"{MARK}={self._id}".encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    # What follows is how it is made.

    @property
    def _known(self):
        return self.folder / "known_hosts"

    def _start_machine(self, disk_bytes, setup):
        boot_id = self.folder / "boot_id"
        self._new_boot_id()
        disk = f"mount -t tmpfs -o size={disk_bytes} disk {self.folder}/home\n" if disk_bytes else ""
        script = f"mount --bind {boot_id} /proc/sys/kernel/random/boot_id\n{disk}{setup}\necho up\nexec cat"
        self._machine = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if self._machine.stdout.readline() != b"up\n":
            self._stop_machine()
            pytest.skip("no namespaces of users here, so no device can be made")

    def _new_boot_id(self):
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")  # in place: it is mounted

    def _stop_machine(self):
        self.kill_all()
        self._machine.stdin.close()
        self._machine.wait()
        self._machine.stdout.close()

    def _write_client(self, port):
        real = shutil.which("ssh")
        config = self.folder / "config"
        config.write_text(
            f"Host device\n  HostName 127.0.0.1\n  Port {port}\n"
            f"Host *\n  IdentityFile {self.folder}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile {self._known}\n"
            "  GlobalKnownHostsFile none\n"
        )
        script = self.client / "ssh"
        script.write_text(f'#!/bin/sh\nexec {real} -F {config} "$@"\n')
        script.chmod(0o755)
        self.port = port
        self._tell_host_key(self._host_key)
        self._write_user_key(self._user_key)

    def _tell_host_key(self, key):
        self._known.write_text(f"[127.0.0.1]:{self.port} {key.export_public_key().decode()}")

    def _write_user_key(self, key):
        path = self.folder / "id"
        path.write_bytes(key.export_private_key())
        path.chmod(0o600)

    async def _serve(self):
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Door(self),
            server_host_keys=[self._host_key],
            process_factory=self._run,
            encoding=None,
            line_editor=False,
        )
        await self.link.open(server.sockets[0].getsockname()[1])
        return server

    async def _run(self, process):
        """What a login shell does with a command."""
        self.commands.append(process.command)
        self._asked.add(task := asyncio.current_task())
        task.add_done_callback(self._asked.discard)
        asked = {name: value for name, value in process.env.items() if name.startswith(("LC_", "LANG"))}
        home = self.folder / "home"
        environment = {
            "HOME": str(home),
            "USER": USER,
            "LOGNAME": USER,
            "SHELL": f"/bin/{self.shell}",
            "PATH": f"{self.programs}:/usr/local/bin:/usr/bin:/bin",
            MARK: self._id,
            **self.environment,
            **asked,
        }
        into = [shutil.which("nsenter"), f"--target={self._machine.pid}", "--user", "--mount", "--preserve-credentials"]
        child = await asyncio.create_subprocess_exec(
            *into,
            *("sh", "-c", 'cd "$HOME" && exec "$@"', "sh"),  # nsenter's --wd would open it in the namespace outside
            self.shell,
            "-c",
            process.command or "",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        feeding = asyncio.ensure_future(_feed(process, child.stdin))
        await asyncio.gather(_tell(child.stdout, process.stdout), _tell(child.stderr, process.stderr))
        code = await child.wait()
        feeding.cancel()
        child.stdin.close()
        if code < 0:
            process.exit_with_signal(signal.Signals(-code).name.removeprefix("SIG"))
        else:
            process.exit(code)


class _Door(asyncssh.SSHServer):
    """Who is let in, as the device has it now."""

    def __init__(self, device):
        self._device = device
        device.connections += 1

    def public_key_auth_supported(self):
        return self._device.lets_in != "password"

    def validate_public_key(self, username, key):
        return key.public_data == self._device._user_key.public_data

    def password_auth_supported(self):
        return self._device.lets_in == "password"


class Link:
    """The network in front of a device. Cuts after `cut_after` more bytes towards it, gives `bytes_s` of them."""

    def __init__(self):
        self.cut_after = None
        self.bytes_s = None
        self.is_down = False
        self.received = 0  # bytes towards the device, of all connections
        self._pairs = set()

    async def open(self, port):
        self._loop = asyncio.get_running_loop()
        self._inner = port
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self):
        """End every connection now; new ones may come."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (self._abort(), done.set()))
        done.wait(5)

    def _abort(self):
        for writer in list(self._pairs):
            writer.transport.abort()

    async def _pass_on(self, reader, writer):
        if self.is_down:
            writer.transport.abort()
            return
        self._pairs.add(writer)
        inner, outer = await asyncio.open_connection("127.0.0.1", self._inner)
        self._pairs.add(outer)
        try:
            if self.is_down:
                return
            with suppress(asyncio.CancelledError):  # asyncio's servers print of it
                await asyncio.gather(self._pump(reader, outer, towards=True), self._pump(inner, writer))
        finally:
            for one in (writer, outer):
                self._pairs.discard(one)
                one.transport.abort()

    async def _pump(self, reader, writer, *, towards=False):
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                if towards and await self._hold(len(data)):
                    return
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def _hold(self, amount):
        """Take as long as the link needs; whether it broke."""
        self.received += amount
        if self.bytes_s:
            await asyncio.sleep(amount / self.bytes_s)
        if self.cut_after is None:
            return False
        self.cut_after -= amount
        if self.cut_after > 0:
            return False
        self.cut_after = None
        self._abort()
        return True


async def _feed(process, stdin):
    with suppress(ConnectionError, asyncssh.Error):
        while data := await process.stdin.read(CHUNK):
            stdin.write(data)
            await stdin.drain()
    stdin.close()  # also when the link broke: sshd's children see the end of their input


async def _tell(source, goal):
    while data := await source.read(CHUNK):
        with suppress(ConnectionError, asyncssh.Error):  # nobody listens any more: the program runs on
            goal.write(data)
            await goal.drain()


@contextmanager
def device(folder, **how):
    """A device whose programs are this machine's own: what it measures is measured. `folder` must be absolute."""
    with _up(Device(folder / "device", **how)) as found:
        python = Path(sys._base_executable).resolve()
        for name in ("python3", f"python3.{sys.version_info.minor}"):
            found.program(name, f'exec {python} "$@"')
        yield found


@contextmanager
def virtual_pi(folder, emulator, root, *, cpu="cortex-a76", model=PI_5, memory=MEMORY, **how):
    """A device that runs programs for aarch64 by `emulator`, a qemu-aarch64-static; `root` holds such a Python 3.11.

    `root` stays as it is: the device has one of its own that leads there, but for what its kernel would tell.
    """
    own = _root_of_pi(folder / "root", root, {"device-tree/model": f"{model}\0", "meminfo": memory})
    register = f"printf '%s' ':aarch64:M::{AARCH64}:{emulator}:F' > /proc/sys/fs/binfmt_misc/register"
    setup = f"mount -t binfmt_misc binfmt /proc/sys/fs/binfmt_misc\n{register}"
    environment = {"QEMU_CPU": cpu, "QEMU_LD_PREFIX": str(own)}
    with _up(Device(folder / "device", setup=setup, environment=environment, **how)) as found:
        for name in ("python3", "python3.11"):
            found.program(name, f'exec {own}/usr/bin/python3.11 "$@"')
        found.program("uname", 'case "$1" in -m) echo aarch64;; *) exec /bin/uname "$@";; esac')
        found.program("dpkg", "echo arm64")
        found.program("vcgencmd", '[ "$1" = get_throttled ] && echo throttled=0x0')
        yield found


def _root_of_pi(own, root, told):
    own.mkdir(parents=True)
    for entry in Path(root).iterdir():
        if entry.name != "proc":
            (own / entry.name).symlink_to(entry)
    for entry in Path(root).glob("proc/*"):
        (own / "proc").mkdir(exist_ok=True)
        if entry.name not in (name.partition("/")[0] for name in told):
            (own / "proc" / entry.name).symlink_to(entry)
    for name, text in told.items():
        path = own / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return own


@contextmanager
def _up(found):
    """Serve a device in a thread of its own for as long as the block lasts."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(found._serve(), loop).result(10)
    try:
        found._write_client(found.link.port)
        yield found
    finally:
        found.link.is_down = True
        found.link.cut()
        asyncio.run_coroutine_threadsafe(_hang_up(found, server), loop).result(10)
        while found._asked:
            found.kill_all()
        found._stop_machine()
        asyncio.run_coroutine_threadsafe(_come_to_rest(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _hang_up(found, server):
    found.link._server.close()
    server.close()
    await server.wait_closed()


async def _come_to_rest():
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)  # transports close in the loop's next turn
