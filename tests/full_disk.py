"""A command where no file can grow beyond some bytes, as on a full disk."""

import subprocess
import sys
from pathlib import Path

COMMAND = """
import resource, sys
from sanet.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


def assert_said_in_one_line(most, *words):
    """It fails, says why in one line, and leaves no part of a file in ``out``."""
    done = subprocess.run([sys.executable, "-c", COMMAND, str(most), *words], capture_output=True, text=True)
    assert done.returncode == 1
    (message,) = [line for line in done.stderr.splitlines() if "sanet:" in line]
    assert "File too large" in message
    assert "Traceback" not in done.stderr
    assert not list(Path("out").rglob("*.partial"))
