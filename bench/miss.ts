/**
 * What does a miss cost? The time from the first frame to an unknown address to its datagram out, answered by `files`;
 * and what a flood of unknown addresses on one device does to another one and to the control plane.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { silent } from '../src/log.js';
import type { PortEvent, PortLeft, PortRequest, PortSource } from '../src/overlay/ports.js';
import { Overlay } from '../src/overlay.js';
import { AF_INET, SO_RCVBUF, SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { MemoryPort } from '../src/sys/memory-port.js';
import type { Port } from '../src/sys/port.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { until } from '../test/harness/hosts.js';
import * as frames from '../test/reference/frames.js';
import { median } from './statistics.js';
import type { GuestTask } from './threads/guest.js';

const HERE = '127.0.0.1';
const THERE = '127.0.0.9';
const MEMORY_BYTES = 512 * 1024 * 1024;
const VNET_HDR_BYTES = 10;

/** Links in memory that are up as soon as they are there. */
class UpPorts implements PortSource {
  readonly ports = new Map<string, MemoryPort>();
  #listener: (event: PortEvent) => void = () => {};

  open({ name, queues }: PortRequest): MemoryPort {
    const port = Object.assign(new MemoryPort(queues), { index: this.ports.size + 1 });
    this.ports.set(name, port);
    return port;
  }

  up(name: string): void {
    const { index } = this.ports.get(name)!;
    this.#listener({
      kind: 'link',
      netns: '',
      index,
      isUp: true,
      mtu: 1400,
      mac: '',
      name,
      isDeleted: false,
    });
  }

  isUp = () => true;
  mtu = () => 1400;
  upperLinks = () => [];
  reopen = (left: PortLeft) => this.open(left);
  move = () => {};
  isLeftUp = () => false;
  discard = () => {};
  isNamespaceThere = () => true;
  underlayFault = () => undefined;
  hostAddresses = () => new Set<string>();
  underlayMtu = () => undefined;
  linkIndex = () => undefined;
  ownPrefixes = () => [];
  holdNamespace = () => ({ isThere: true, leave: () => {} });
  inNamespace = <T>(_netns: string, work: () => T) => work();
  overflows = (ports: readonly Port[]) => ports.map(() => 0n);
  close = () => {};
  watch(listener: (event: PortEvent) => void): () => void {
    this.#listener = listener;
    return () => {};
  }
}

function frame(mac: readonly number[]): Uint8Array {
  const datagram = frames.udp({ ends: frames.ENDS_4, sourcePort: 4000, payload: new Uint8Array(64) });
  const inner = frames.ethernet(0x0800, frames.ipv4({ protocol: 17, payload: datagram }));
  inner.set(mac);
  const whole = new Uint8Array(VNET_HDR_BYTES + inner.length);
  whole.set(inner, VNET_HDR_BYTES);
  return whole;
}

/** A UDP socket of the far side, with its port. */
function farSide(): { fd: number; port: number } {
  const fd = must(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(8 * 1024 * 1024);
  libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, bytes, 4);
  for (let port = 30_000; port < 40_000; port++) {
    const address = sockaddr(AF_INET, THERE, port);
    if (libc.bind(fd, address, address.length) >= 0) return { fd, port };
  }
  throw new Error('no free port');
}

function run<Result>(task: GuestTask): Promise<Result> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./threads/guest.js', import.meta.url), { workerData: task });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

interface Rig {
  readonly overlay: Overlay;
  readonly ports: UpPorts;
  readonly far: { fd: number; port: number };
  readonly folder: string;
}

/** `lookup` is looked up by files, `other` is direct. */
async function start(targets: number): Promise<Rig> {
  const folder = mkdtempSync(join(tmpdir(), 'overlayd-bench-'));
  const far = farSide();
  const file = join(folder, 'overlay.json');
  const entries = Array.from({ length: targets }, (_, number) => {
    const mac = `2:0:${[24, 16, 8, 0].map((shift) => ((number >>> shift) & 255).toString(16)).join(':')}`;
    return [mac, { ip: THERE, port: far.port }];
  });
  writeFileSync(file, JSON.stringify(Object.fromEntries(entries)));
  const ports = new UpPorts();
  const overlay = await Overlay.start({
    ports,
    workers: 1,
    memoryBytes: MEMORY_BYTES,
    cpus: [],
    bank: 4,
    log: silent,
  });
  const listen = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': far.port + 10_000 };
  await overlay.createOverlay({
    name: 'lookup',
    encap: 'vxlan',
    search: 'files',
    vnetid: 1,
    properties: { ...listen, 'files/config': file },
  });
  await overlay.createOverlay({
    name: 'other',
    encap: 'vxlan',
    search: 'direct',
    vnetid: 2,
    properties: { ...listen, 'direct/dest_ip': THERE, 'direct/dest_port': far.port },
  });
  for (const name of overlay.names) ports.up(name);
  await until('both are started', 5000, () =>
    overlay.names.every((name) => overlay.state(name) === 'started'),
  );
  return { overlay, ports, far, folder };
}

async function stop({ overlay, far, folder }: Rig): Promise<void> {
  await overlay.close();
  closeFd(far.fd);
  rmSync(folder, { recursive: true });
}

async function latency(misses: number): Promise<void> {
  const rig = await start(misses);
  try {
    const task: GuestTask = {
      kind: 'one',
      port: rig.ports.ports.get('lookup')!.ends[0]!,
      socket: rig.far.fd,
      frame: frame([2, 0, 0, 0, 0, 0]),
      frames: misses,
      rate: 0,
      isDistinct: true,
    };
    const times = (await run<number[]>(task)).sort((a, b) => a - b);
    const at = (part: number) => (times[Math.floor((times.length - 1) * part)]! / 1000).toFixed(3);
    console.log(
      `\nmiss answered by files, ${misses} of them, frame in to datagram out: median ${at(0.5)} ms, ` +
        `90 % ${at(0.9)} ms, 99 % ${at(0.99)} ms; target 1 ms`,
    );
  } finally {
    await stop(rig);
  }
}

async function flood(seconds: number): Promise<void> {
  const rig = await start(1);
  const { overlay, ports, far } = rig;
  const delays: number[] = [];
  const rss = process.memoryUsage().rss;
  let most = rss;
  let asked = performance.now();
  // A status read on the main thread, as a control call does it.
  const timer = setInterval(() => {
    overlay.status('lookup');
    overlay.properties('other');
    delays.push(performance.now() - asked - 20);
    asked = performance.now();
    most = Math.max(most, process.memoryUsage().rss);
  }, 20);
  try {
    const offered = 120_000;
    const forwarded = 5000;
    const common = { socket: far.fd, isDistinct: false };
    const counting = run<number>({
      ...common,
      kind: 'count',
      port: -1,
      frame: frame([2, 0, 0, 0, 0, 0]),
      frames: forwarded * seconds,
      rate: 0,
    });
    const flooding = run<number>({
      ...common,
      kind: 'many',
      port: ports.ports.get('lookup')!.ends[0]!,
      // No address of the file: files answers that it is unknown.
      frame: frame([2, 1, 0, 0, 0, 0]),
      frames: offered * seconds,
      rate: offered,
      isDistinct: true,
    });
    const sending = run<number>({
      ...common,
      kind: 'many',
      port: ports.ports.get('other')!.ends[0]!,
      frame: frame([2, 8, 0, 0, 0, 0]),
      frames: forwarded * seconds,
      rate: forwarded,
    });
    const took = await flooding;
    await sending;
    const received = await counting;
    const { counters, drops } = overlay.deviceStats('lookup').counts;
    const lost = forwarded * seconds - received;
    const dropped = Object.entries(drops)
      .filter(([, count]) => count > 0n)
      .map(([name, count]) => `${name} ${count}`);
    console.log(
      `\nflood: ${((offered * seconds) / took / 1000).toFixed(0)} thousand unknown addresses a second for ` +
        `${took.toFixed(1)} s, ${(Number(counters.tx_deferred) / took / 1000).toFixed(0)} thousand a second looked up`,
    );
    console.log(`  the other device: ${received} of ${forwarded * seconds} frames arrived, ${lost} lost`);
    console.log(
      `  main: a call waits ${median(delays).toFixed(1)} ms (median), ${Math.max(...delays).toFixed(0)} ms at most; ` +
        `target 500 ms; memory grew by ${((most - rss) / 1048576).toFixed(0)} MiB`,
    );
    console.log(`  the flooded device's drops: ${dropped.join(', ')}`);
  } finally {
    clearInterval(timer);
    await stop(rig);
  }
}

/** Measures and prints both. */
export async function main({ smoke }: { smoke: boolean }): Promise<void> {
  await latency(smoke ? 50 : 2000);
  await flood(smoke ? 1 : 10);
}
