#!/usr/bin/env python3
"""Has QEMU save and restore the memory of the guests that `pages.rs` left as plain files: the same bytes, the same host, one run.

    TRAPLINE_RAW=DIRECTORY cargo bench -p trapline-machine --bench pages
    crates/machine/benches/pages_qemu.py DIRECTORY

For each guest a virtual machine is started and not let run, its memory is filled from the file, and `savevm` into a qcow2 image and `loadvm`
out of it are timed, three times each; the fastest counts. Then `migrate` to a file through `cat`, which is the stream alone, once: QEMU
migrates a machine no second time.
"""
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

ROUNDS = 3


class Monitor:
    """QEMU's monitor protocol, with one command at a time."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(600):
            try:
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.1)
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                sys.exit(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def human(self, line):
        text = self.ask("human-monitor-command", **{"command-line": line})
        if text.strip():
            sys.exit(f"{line}: {text}")

    def migrate(self, path):
        self.ask("migrate", uri=f"exec:cat > {path}")
        while True:
            status = self.ask("query-migrate").get("status")
            if status == "completed":
                return
            if status == "failed":
                sys.exit("migrate: failed")
            time.sleep(0.002)


def timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def measure(raw, directory):
    size = os.path.getsize(raw)
    image, path, stream = (os.path.join(directory, name) for name in ("disk.qcow2", "monitor", "stream"))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    # The memory is one object that the file is copied into, as a guest's own stores would have filled it.
    qemu = subprocess.Popen(
        ["qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-accel", "tcg", "-m", f"{size >> 20}M",
         "-drive", f"if=virtio,file={image},format=qcow2", "-qmp", f"unix:{path},server=on,wait=off",
         "-device", f"loader,file={raw},addr=0,force-raw=on"])
    try:
        monitor = Monitor(path)
        monitor.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        saved = min(timed(lambda: monitor.human("savevm pages")) for _ in range(ROUNDS))
        restored = min(timed(lambda: monitor.human("loadvm pages")) for _ in range(ROUNDS))
        sent = timed(lambda: monitor.migrate(stream))
    finally:
        qemu.kill()
        qemu.wait()
    per_second = lambda seconds: size / 1e9 / seconds
    name = os.path.basename(raw).removesuffix(".raw")
    print(f"{name:<16} {per_second(saved):5.2f} GB/s {per_second(restored):5.2f} GB/s {os.path.getsize(image) >> 20:>8} MiB"
          f"   migrate {per_second(sent):5.2f} GB/s {os.path.getsize(stream) >> 20:>6} MiB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"{'':<16} {'savevm':>10} {'loadvm':>10} {'file':>12}")
    for name in ("sparse", "full", "incompressible"):
        with tempfile.TemporaryDirectory() as directory:
            measure(os.path.join(sys.argv[1], f"{name}.raw"), directory)
