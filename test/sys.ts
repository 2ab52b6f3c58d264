/** The door to the system: calls and errors that no other test goes through. */
import { readdirSync, readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OverlayError } from '../src/errors.js';
import { AF_UNIX, POLLIN, SOCK_CLOEXEC, SOCK_DGRAM, structs } from '../src/sys/abi.js';
import { allowedCpus } from '../src/sys/affinity.js';
import { createEpoll, unwatch, watch } from '../src/sys/epoll.js';
import { errnoName, errnoText, must, SystemError } from '../src/sys/errno.js';
import { closeFd, createEventfd, ringEventfd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { Hosts } from './harness/hosts.js';
import { testWith } from './harness/needs.js';

const sys = suite('system calls');

function pair(): [number, number] {
  const fds = new Int32Array(2);
  must(libc.socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), 'socketpair');
  return [fds[0]!, fds[1]!];
}

/** An array of struct iovec over the buffers. */
function iovecs(...buffers: Uint8Array[]): Uint8Array {
  const { size, iov_base, iov_len } = structs.iovec;
  const bytes = new Uint8Array(size * buffers.length);
  const view = new DataView(bytes.buffer);
  for (const [index, buffer] of buffers.entries()) {
    view.setBigUint64(index * size + iov_base, BigInt(libc.addressOf(buffer)), true);
    view.setBigUint64(index * size + iov_len, BigInt(buffer.length), true);
  }
  return bytes;
}

sys('writev gathers, readv scatters', () => {
  const [left, right] = pair();
  const parts = [Uint8Array.of(1, 2, 3), Uint8Array.of(4, 5)];
  assert.is(libc.writev(left, iovecs(...parts), 2), 5);
  const into = [new Uint8Array(2), new Uint8Array(9)];
  assert.is(libc.readv(right, iovecs(...into), 2), 5);
  assert.equal([...into[0]!, ...into[1]!.subarray(0, 3)], [1, 2, 3, 4, 5]);
  closeFd(left);
  closeFd(right);
});

sys('poll, epoll and eventfd agree on what is readable', () => {
  const event = createEventfd();
  const epoll = createEpoll();
  const { size, fd, events, revents } = structs.pollfd;
  const polled = new Uint8Array(size);
  const view = new DataView(polled.buffer);
  view.setInt32(fd, event, true);
  view.setInt16(events, POLLIN, true);
  watch(epoll, event, 2, 513);
  const ready = new Uint8Array(structs.epoll_event.size * 4);
  assert.is(libc.poll(polled, 1, 0), 0);
  assert.is(libc.epollWaitAt(epoll, libc.addressOf(ready), 4, 0), 0);
  ringEventfd(event);
  assert.is(libc.poll(polled, 1, 0), 1);
  assert.is(view.getInt16(revents, true) & POLLIN, POLLIN);
  assert.is(libc.epollWaitAt(epoll, libc.addressOf(ready), 4, 0), 1);
  assert.is(new DataView(ready.buffer).getUint32(structs.epoll_event.data, true), (2 << 16) | 513);
  unwatch(epoll, event);
  unwatch(epoll, event);
  assert.is(libc.epollWaitAt(epoll, libc.addressOf(ready), 4, 0), 0);
  closeFd(event);
  closeFd(epoll);
});

sys('an address is the same in another thread', async () => {
  const memory = new SharedArrayBuffer(4096);
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    parentPort.postMessage(require('koffi').address(new Uint8Array(workerData)));`;
  const worker = new Worker(code, { eval: true, workerData: memory });
  const there = await new Promise((resolve) => worker.once('message', resolve));
  assert.is(Number(there), libc.addressOf(new Uint8Array(memory)));
  await worker.terminate();
});

sys('errno becomes a typed error that names the call', () => {
  try {
    must(libc.close(-1), 'close of nothing');
    assert.unreachable();
  } catch (error) {
    assert.instance(error, SystemError);
    assert.instance(error, OverlayError);
    assert.is((error as SystemError).errno, 'EBADF');
    assert.match((error as SystemError).message, /^close of nothing: bad file descriptor \(EBADF\)$/);
  }
  assert.is(errnoName(11), 'EAGAIN');
  assert.is(errnoName(95), 'ENOTSUP');
  assert.is(errnoName(4000), 'E4000');
  assert.is(errnoText(4000), 'error 4000');
});

testWith(sys, ['root', '/dev/net/tun'], '--pin binds every worker and only the workers', async () => {
  const cpu = allowedCpus().at(-1)!;
  const hosts = new Hosts();
  try {
    const daemon = await hosts.daemon('a', { flags: ['--workers', '3', '--pin', `${cpu}`] });
    const tasks = readdirSync(`/proc/${daemon.child.pid}/task`);
    const allowed = tasks.map(
      (task) =>
        /Cpus_allowed_list:\s+(\S+)/.exec(
          readFileSync(`/proc/${daemon.child.pid}/task/${task}/status`, 'utf8'),
        )![1],
    );
    assert.is(allowed.filter((list) => list === `${cpu}`).length, 3, allowed.join(' '));
  } finally {
    await hosts.close();
  }
});

sys.run();
