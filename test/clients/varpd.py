#!/usr/bin/env python3
"""varpd for one overlay device, in another language: everything it needs is in Python's standard library.

    varpd.py SOCKET OVERLAY [MAC=DESTINATION ...]

It opens the external handle of overlayd for writing, associates the device (created with `-s external`), and answers
each lookup from the addresses on its command line: frames to MAC go to DESTINATION (`192.0.2.2:4789`, or
`[2001:db8::2]:4789`), frames to any other address are dropped. When it ends, however it ends, the daemon notices by the
handle's connection: the device is degraded, what is known goes on being forwarded, and the requests that were taken and
not answered wait for the next program.
"""
import http.client
import json
import os
import socket
import sys
import threading


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


class Refused(Exception):
    """An answer of the daemon that is no success; `errno` is the name that illumos has for it."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.errno = error["errno"]


class Handle:
    """The external handle: open as long as its connection is."""

    def __init__(self, path):
        stream = UnixConnection(path)
        headers = {"Content-Type": "application/json"}
        stream.request("POST", "/v1/handle", json.dumps({"write": True}), headers)
        self.stream = stream.getresponse()
        first = json.loads(self.stream.readline())
        if "error" in first:
            raise Refused(first["error"])
        self.headers = {**headers, "Overlay-Handle": first["token"]}
        self.calls = UnixConnection(path)
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        """A line comes every few seconds. When no more come, the daemon has gone, and so do we."""
        while self.stream.readline():
            pass
        print("the daemon has gone", file=sys.stderr, flush=True)
        os._exit(1)

    def call(self, name, **fields):
        self.calls.request("POST", "/v1/handle/" + name, json.dumps(fields), self.headers)
        answer = json.loads(self.calls.getresponse().read())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer


def canonical(mac):
    """As the daemon writes them: 2:8:20:1:2:3 is 02:08:20:01:02:03."""
    return ":".join(f"{int(octet, 16):02x}" for octet in mac.split(":"))


def serve(handle, known):
    while True:
        try:
            asked = handle.call("lookup")
        except Refused as refused:
            # Nobody asked for a second.
            if refused.errno == "ETIME":
                continue
            raise
        mac = asked["destination"]
        try:
            if mac in known:
                handle.call("respond", request=asked["id"], to=known[mac])
            else:
                handle.call("drop", request=asked["id"])
            print(f"{asked['overlay']}: {mac} is at {known.get(mac, 'no place we know')}", flush=True)
        except Refused as refused:
            # EINVAL: somebody else has settled it meanwhile, such as an operator.
            if refused.errno != "EINVAL":
                raise
            print(f"{asked['overlay']}: {mac}: {refused}", flush=True)


def main():
    if len(sys.argv) < 3 or not all("=" in entry for entry in sys.argv[3:]):
        sys.exit(__doc__)
    path, overlay, *entries = sys.argv[1:]
    known = {canonical(mac): to for mac, to in (entry.split("=", 1) for entry in entries)}
    try:
        handle = Handle(path)
        needs = handle.call("info", overlay=overlay)["needs"]
        handle.call("associate", overlay=overlay, mode="dynamic", provides=needs)
        print(f"associated {overlay}: a destination is {' and '.join(needs)}", flush=True)
        serve(handle, known)
    except (Refused, OSError) as error:
        sys.exit(f"varpd.py: {error}")


if __name__ == "__main__":
    main()
