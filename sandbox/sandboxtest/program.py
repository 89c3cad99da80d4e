"""The program the conformance suite runs inside sandboxes.

  serve ADDR...   listen on each host:port (v6 hosts in brackets), answer one line per request line, see answer()
  term CODE ADDR  like serve, and exit with CODE on SIGTERM
  deaf ADDR       like serve, and ignore SIGTERM
  exit CODE       exit
  die NUMBER      end by that signal
  print N CODE    N bytes to stdout, as many to stderr, a last line on each, then exit
  flood           print without end
  orphan          leave a child behind that holds stdout, and exit
  info            print what this process was given, as JSON, and exit
"""
import errno, json, os, signal, socket, subprocess, sys, threading, time

ticks = 0
hoard = []
kept = {}
talking = 0
talking_lock = threading.Lock()


def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.01)


def spin():
    while True:
        pass


def info():
    groups = sorted(os.getgroups())
    return {"args": sys.argv[2:], "env": dict(os.environ), "dir": os.getcwd(), "uid": os.getuid(), "gid": os.getgid(), "groups": groups,
            "pids": [int(p) for p in os.listdir("/proc") if p.isdigit()], "host": socket.gethostname()}


def fill(path, limit):
    written, block = 0, b"x" * (1 << 20)
    try:
        with open(path, "wb", buffering=0) as f:
            while written < limit:
                written += f.write(block)
    except OSError as e:
        return {"written": written, "error": errno.errorcode[e.errno]}
    return {"written": written, "error": ""}


def fork(n):
    started = 0
    for _ in range(n):
        try:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            started += 1
        except OSError as e:
            return {"started": started, "error": errno.errorcode[e.errno]}
    return {"started": started, "error": ""}


def connect(host, port):
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        return {"error": ""}
    except OSError as e:
        return {"error": str(e) or "error"}


def reach_self(port):
    kept["self"] = socket.create_connection(("127.0.0.1", int(port)))
    return ask_self()


def ask_self():
    kept["self"].sendall(b"echo to-itself\n")
    return json.loads(kept["self"].makefile("r").readline())["ok"]


def answer(verb, args):
    if verb == "keep":
        kept[args[0]] = args[1]
        return ""
    if verb == "kept":
        return kept.get(args[0], "")
    if verb == "talking":
        return talking
    if verb == "clocks":
        return [time.time(), time.monotonic()]
    if verb == "print":
        print(" ".join(args), flush=True)
        print(" ".join(args), file=sys.stderr, flush=True)
        return ""
    if verb == "reach-self":
        return reach_self(args[0])
    if verb == "ask-self":
        return ask_self()
    if verb == "echo":
        return " ".join(args)
    if verb == "ticks":
        return ticks
    if verb == "info":
        return info()
    if verb == "exit":
        os._exit(int(args[0]))
    if verb == "read":
        with open(args[0]) as f:
            return f.read()
    if verb == "list":
        return sorted(os.listdir(args[0]))
    if verb == "write":
        with open(args[0], "w") as f:
            f.write(args[1])
        return ""
    if verb == "fill":
        return fill(args[0], int(args[1]))
    if verb == "fork":
        return fork(int(args[0]))
    if verb == "bomb":
        while True:
            try:
                os.fork()
            except OSError:
                pass
    if verb == "hog":
        while True:
            hoard.append(os.urandom(1 << 20))
    if verb == "spin":
        for _ in range(int(args[0])):
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
        return ""
    if verb == "connect":
        return connect(*args)
    raise ValueError("unknown verb " + verb)


def talk(conn):
    global talking
    with talking_lock:
        talking += 1
    try:
        answer_all(conn)
    except OSError:
        pass
    finally:
        with talking_lock:
            talking -= 1


def answer_all(conn):
    with conn, conn.makefile("rw") as f:
        for line in f:
            words = line.split()
            try:
                reply = {"ok": answer(words[0], words[1:])}
            except OSError as e:
                reply = {"error": errno.errorcode.get(e.errno, str(e))}
            except Exception as e:
                reply = {"error": repr(e)}
            f.write(json.dumps(reply) + "\n")
            f.flush()


def accept(listener):
    while True:
        conn, _ = listener.accept()
        threading.Thread(target=talk, args=(conn,), daemon=True).start()


def serve(addrs, wait=lambda: time.sleep(1 << 30)):
    threading.Thread(target=tick, daemon=True).start()
    for addr in addrs:
        host, port = addr.rsplit(":", 1)
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(128)
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    print("ready", flush=True)
    wait()


def main(verb, *args):
    if verb == "serve":
        serve(args)
    elif verb == "term":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # a handler might run just before a wait that is then not cut short
        serve(args[1:], lambda: signal.sigwait([signal.SIGTERM]))
        os._exit(int(args[0]))
    elif verb == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        serve(args)
    elif verb == "exit":
        sys.exit(int(args[0]))
    elif verb == "die":
        os.kill(os.getpid(), int(args[0]))
        time.sleep(60)
    elif verb == "print":
        for f, last in ((sys.stdout, "last out"), (sys.stderr, "last err")):
            f.write("x" * int(args[0]) + "\n" + last + "\n")
        sys.stdout.flush()
        os._exit(int(args[1]))
    elif verb == "flood":
        while True:
            os.write(1, b"flood " * 1000 + b"\n")
    elif verb == "orphan":
        if os.fork() == 0:
            time.sleep(600)
        os._exit(4)
    elif verb == "info":
        print(json.dumps(info()), flush=True)


main(*sys.argv[1:])
