"""Makes of the Python that has this folder in its PYTHONPATH one without what only Linux, or POSIX, has.

Names and modules are gone, processes are spawned, directories cannot be opened, no name has what Windows forbids, and
nothing is renamed, replaced or deleted while this process has it open or mapped.
"""

import os

os.supports_dir_fd.clear()  # before shutil is imported, so that it deletes trees by their paths

import asyncio  # noqa: E402, F401  what the standard library itself needs of POSIX is imported before it goes
import multiprocessing  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import sysconfig  # noqa: E402
import tempfile  # noqa: E402

MODULES = ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty", "pty")
NAMES = {
    os: "fork forkpty sched_getaffinity sched_setaffinity sysconf getloadavg getuid geteuid getgid mkfifo chown "
    "posix_spawn posix_fadvise killpg setsid nice wait3 wait4",
    signal: "pthread_sigmask pthread_kill sigtimedwait sigwait sigwaitinfo alarm setitimer SIGHUP SIGALRM SIGQUIT",
}
FORBIDDEN = {*'<>:"|?*\\'}
DEVICES = {"aux", "con", "nul", "prn"}


def refuse(event: str, arguments: tuple) -> None:
    if event == "open":
        path, mode, flags = arguments
        if mode is None and os.path.isdir(path):
            raise PermissionError(13, "a directory is opened", path)
        if isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR):
            require_name(path)
    elif event == "os.mkdir":
        require_name(arguments[0])
    elif event in ("os.rename", "os.remove", "os.rmdir"):
        for path in arguments[: 2 if event == "os.rename" else 1]:
            require_name(path)
            place = os.path.realpath(os.fsdecode(path))
            if place in opened():
                raise PermissionError(13, "it is open", place)
    elif event in ("os.symlink", "os.link"):
        raise PermissionError(1, "a privilege is missing", arguments[1])


def require_name(path: object) -> None:
    name = os.path.basename(os.fsdecode(path))
    wrong = FORBIDDEN & {*name} or name.endswith((" ", ".")) or name.partition(".")[0].lower() in DEVICES
    if wrong and not os.fsdecode(path).startswith("/dev/"):
        raise OSError(22, "no name of a file", path)


def opened() -> set[str]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # that of the listing itself
            continue
    return found | {line.split(maxsplit=5)[-1].rstrip() for line in open("/proc/self/maps", encoding="utf-8")}


for module, names in NAMES.items():
    for name in names.split():
        delattr(module, name)
for module in MODULES:
    sys.modules[module] = None
sysconfig.get_config_vars()  # of which some are in a file that is named after the platform
sys.platform = "elsewhere"
multiprocessing.set_start_method("spawn")
tempfile.TemporaryFile = tempfile.NamedTemporaryFile  # as on Windows, since another one is deleted while it is open
sys.addaudithook(refuse)
