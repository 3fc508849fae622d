#!/usr/bin/env python3
"""What `make run` does after the build: starts the service, shows it working, keeps it up.

    run.py BINARY DATA_DIR PORT
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from show import samples, show

SCOPES = "moderate,read,review,admin"
# The first start makes a database and loads the models; two busy cores take seconds.
READY_WITHIN_S = 180
# Above the service's own grace period, so that it is never cut short.
STOP_WITHIN_S = 90
LOG_LINES = 20
KEY_FILE = "demo.key"
# The judge that the shipped policies ask by their text, and the small model that shows it.
PROMPTED = "shieldgemma2"
DEMO = Path(__file__).resolve().parent.parent.parent / "models" / "demo" / "checkpoint"
LOG_FILE = "serve.log"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Trouble(Exception):
    """What went wrong and what to do, in words for the terminal."""


class Stop(Exception):
    """Ctrl-C or SIGTERM."""


def main(argv):
    if len(argv) != 4 or not argv[3].isdecimal() or not 0 < int(argv[3]) < 65536:
        print("usage: run.py BINARY DATA_DIR PORT", file=sys.stderr)
        return 2
    binary, data, port = Path(argv[1]).absolute(), Path(argv[2]).absolute(), int(argv[3])
    for number in SIGNALS:
        # Under nohup the terminal's end is to be ignored.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, on_signal)
    service = None
    try:
        require_free(port)
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        add_demo(binary, data)
        service = start(binary, data, port)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        base = f"http://127.0.0.1:{port}"
        wait_until_ready(service, base, data)
        key = demo_key(binary, data, base)
        print(f"\nshieldgate is up on {base}; samples judged through its own API:\n")
        failures = show(base, key, samples())
        tell_what_next(base, key, data)
        if failures:
            raise Trouble(f"{failures} of the samples got no verdict; the log is {data / LOG_FILE}")
        code = service.wait()
        raise Trouble(f"the service ended by itself ({describe(code)}):\n{last_lines(data / LOG_FILE)}")
    except Stop:
        return 0
    except Trouble as trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        # A second Ctrl-C while it stops changes nothing: there is a bound.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        stop(service)


def on_signal(number, _frame):
    raise Stop


def require_free(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the service does: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise Trouble(f"port {port} needs root\n  hint: make run PORT=8080") from error
        except OSError as error:
            other = port + 1 if port < 65535 else 8080
            raise Trouble(
                f"port {port} on 127.0.0.1 is taken ({error.strerror})\n"
                f"  hint: stop what listens there (`ss -ltnp 'sport = :{port}'` shows it), or: make run PORT={other}"
            ) from error


def add_demo(binary, data):
    """The demo model answers where ShieldGemma 2 would, unless that was added; another `serve` knows nothing of it."""
    record = data / "models" / f"{PROMPTED}.json"
    if record.exists():
        known = json.loads(record.read_text()).get("folder")
        if known is None or Path(known) != DEMO:
            return
    command = [str(binary), "models", "add", str(DEMO), "--name", PROMPTED, "--data-dir", str(data)]
    added = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if added.returncode != 0:
        raise Trouble(f"the demo model can't be added:\n{added.stderr.strip()}")


def start(binary, data, port):
    command = [str(binary), "serve", "--data-dir", str(data), "--listen", f"127.0.0.1:{port}"]
    print(f"starting the service; its log: {data / LOG_FILE}", file=sys.stderr)
    # No signal between the fork and the moment we know what to stop.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    with open(data / LOG_FILE, "wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C reaches the terminal's whole group; the service is told once, by us.
            start_new_session=True,
            preexec_fn=settle_child,
        )


def settle_child():
    """Undoes the mask; and if we are killed, the kernel tells the service to stop."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGTERM), 0, 0, 0)


def wait_until_ready(service, base, data):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_WITHIN_S
    last, pause = "it did not answer", 0.1
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise Trouble(
                f"the service ended while it was starting ({describe(service.returncode)}):\n{last_lines(data / LOG_FILE)}"
            )
        try:
            with opener.open(f"{base}/readyz", timeout=5):
                return
        except urllib.error.HTTPError as error:
            last = f"/readyz answered {error.code}"
        except OSError as error:
            last = str(error)
        time.sleep(pause)
        pause = min(pause * 1.3, 2)
    raise Trouble(f"the service was not ready after {READY_WITHIN_S} s ({last}):\n{last_lines(data / LOG_FILE)}")


def demo_key(binary, data, base):
    """The key of the last run where the service still knows it, else a new one."""
    place = data / KEY_FILE
    try:
        key = place.read_text().strip()
        if key and is_known(base, key):
            return key
    except FileNotFoundError:
        pass
    command = [str(binary), "keys", "create", "--data-dir", str(data), "--name", "demo", "--scopes", SCOPES]
    made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    key = made.stdout.strip()
    if made.returncode != 0 or not key:
        raise Trouble(f"`shieldgate keys create` failed ({describe(made.returncode)}):\n{made.stderr.strip()}")
    beside = place.with_name(KEY_FILE + ".incoming")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key + "\n")
    beside.rename(place)
    return key


def is_known(base, key):
    request = urllib.request.Request(f"{base}/v1/policies", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30):
            return True
    except urllib.error.HTTPError as error:
        return error.code not in (401, 403)


def tell_what_next(base, key, data):
    sample = Path(__file__).resolve().parent / "coffee.jpg"
    try:
        sample = sample.relative_to(Path.cwd())
    except ValueError:
        pass
    print(f"\nYour key (kept in {data / KEY_FILE}):\n  {key}")
    print("\nTry next:")
    print(f"  curl -sS -H 'Authorization: Bearer {key}' -H 'Content-Type: image/jpeg' \\")
    print(f"    --data-binary @{quoted(str(sample))} {base}/v1/images")
    print("\nCtrl-C stops the service and its Postgres.", flush=True)


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def stop(service):
    if service is None or service.poll() is not None:
        return
    print("\nstopping the service and its Postgres …", file=sys.stderr)
    service.terminate()
    try:
        service.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        print(f"error: it did not stop within {STOP_WITHIN_S} s: killing it", file=sys.stderr)
        service.kill()
        service.wait()


def last_lines(log):
    try:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError as error:
        return f"  (no log: {error})"
    return "\n".join(f"  {line}" for line in lines) or "  (it said nothing)"


def describe(code):
    return f"signal {-code}" if code < 0 else f"exit code {code}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
