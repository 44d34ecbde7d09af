"""Runs the cases of one file of crun's test suite, each in a process of its own with a time limit.

    crun-cases.py SECONDS FILE [PATTERN]

PATTERN: only the cases that it matches. Prints TAP. The suite's own main function would run all cases in one process, where one that hangs takes the others along.
"""

import importlib
import os
import pty
import re
import select
import shutil
import signal
import sys
import time


def run(module, case, seconds):
    """The output of a case, on a terminal of its own as some of them want, and whether it came to its end."""
    child, terminal = pty.fork()
    if child == 0:
        try:
            module.tests_main({case: module.all_tests[case]})
        finally:
            sys.stdout.flush()
            os._exit(0)
    output = b""
    end = time.monotonic() + seconds
    done = False
    while not done and time.monotonic() < end:
        # A container that a case leaves behind keeps the terminal open: the case's own end counts.
        ready, _, _ = select.select([terminal], [], [], 0.2)
        if ready:
            try:
                output += os.read(terminal, 65536)
            except OSError:  # EIO: nobody has it open any more
                done = True
        elif os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            done = True
    if not done:
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(terminal)
    root = "%s/.testsuite-run-%d" % (os.getcwd(), child)
    end_leftovers(root)
    shutil.rmtree(root, ignore_errors=True)
    return output.decode(errors="replace"), done


def end_leftovers(root):
    """Ends the processes of containers that a failed case has left: their command lines name the case's folder."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open("/proc/%s/cmdline" % name, "rb") as f:
                ours = root.encode() in f.read()
            if ours:
                os.kill(int(name), signal.SIGKILL)
        except OSError:
            pass  # it has gone


def main():
    seconds, file = int(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, os.path.dirname(file))
    os.environ["LANG"] = "C"
    module = importlib.import_module(os.path.basename(file).removesuffix(".py"))
    pattern = sys.argv[3] if len(sys.argv) > 3 else ""
    cases = [case for case in module.all_tests if re.search(pattern, case)]
    print("1..%d" % len(cases), flush=True)
    for number, case in enumerate(cases, 1):
        output, done = run(module, case, seconds)
        verdict = "not ok %d %s" % (number, case)
        for line in output.splitlines():
            if done and line == "ok 1 - %s" % case:
                verdict = "ok %d %s" % (number, case)
            elif done and line == "ok 1 - %s #SKIP" % case:
                verdict = "ok %d %s # skip" % (number, case)
        print(verdict)
        if not done:
            print("# did not end within %d s" % seconds)
        for line in output.splitlines():
            if line != "1..1" and line != "ok 1 - %s" % case:
                print("# " + line)
        sys.stdout.flush()


main()
