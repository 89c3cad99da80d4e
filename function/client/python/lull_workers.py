"""Threads that each have one invocation at a time.

A thread cannot be ended. One whose invocation is late, so that the Runtime API has told its caller by now, is given up: another
takes its place, and it ends when its handler returns.
"""

import threading
import time

import lull_errors

GRACE = 0.5  # s that the Runtime API has to find out first that an invocation is late
LONGEST = 3600.0  # s of one wait; a condition does not take every number


class Workers:
    def __init__(self, run):
        self._run = run
        self._changed = threading.Condition()
        self._deadlines = {}  # of the running invocations, by thread
        self._idle = False  # the supervisor waits for the first invocation
        self._failure = None

    def run(self, count):
        """Returns, with its error, when a thread failed."""
        for _ in range(count):
            self._start()
        self._supervise()

    def begin(self, deadline):
        """Says that this thread's invocation must end before deadline, in seconds since the epoch."""
        with self._changed:
            self._deadlines[threading.get_ident()] = deadline + GRACE
            # It wakes by itself for all but the first.
            if self._idle:
                self._changed.notify()

    def end(self):
        """Reports whether the invocation still counts; if not, the thread has to end."""
        with self._changed:
            return self._deadlines.pop(threading.get_ident(), None) is not None

    def _start(self):
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self):
        try:
            self._run()
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify()

    def _supervise(self):
        with self._changed:
            while self._failure is None:
                now = time.time()
                for thread in [t for t, deadline in self._deadlines.items() if deadline <= now]:
                    del self._deadlines[thread]
                    self._start()
                self._idle = not self._deadlines
                self._changed.wait(None if self._idle else min(LONGEST, min(self._deadlines.values()) - now))
        lull_errors.log(lull_errors.describe(self._failure))
        raise SystemExit(1)
