/** Errors that a send reports and that are another datagram's (man 7 ip, IP_RECVERR): they cost a retry, and no frame. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { dropNames } from '../src/datapath/drop.js';
import * as errno from '../src/sys/errno.js';
import { transmit } from '../workers/tx.js';
import { CoreRig, workerOf } from './harness/core-rig.js';
import { RefusingKernel } from './harness/refusing-kernel.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';

const sendErrors = suite('send errors');

/** An underlay that reports what a test has lined up before each send, and then sends. */
class StaleKernel extends RefusingKernel {
  link: Uint8Array[] = [];
  /** errno of each of the next calls, 0 for one that succeeds. */
  pending: number[] = [];
  sent = 0;
  calls = 0;
  #failure = 0;

  constructor(readonly rig: CoreRig) {
    super();
  }

  override read(_fd: number, address: number): number {
    const frame = this.link.shift();
    if (!frame) return -1;
    const at = address - this.rig.views.base;
    this.rig.views.u8.fill(0, at, at + layout.VNET_HDR_BYTES);
    this.rig.views.u8.set(frame, at + layout.VNET_HDR_BYTES);
    return layout.VNET_HDR_BYTES + frame.length;
  }

  override sendmmsg(_fd: number, _messages: number, count: number): number {
    this.calls++;
    this.#failure = this.pending.shift() ?? 0;
    if (this.#failure !== 0) return -1;
    this.sent += count;
    return count;
  }

  override errno(): number {
    return this.#failure;
  }
}

const frame = frames.ethernet(
  frames.ETHERTYPE_IPV4,
  frames.ipv4({ protocol: 17, payload: frames.udp({ ends: frames.ENDS_4 }) }),
);

function start(): { rig: CoreRig; kernel: StaleKernel; device: number; send(count: number): void } {
  const rig = new CoreRig({ bank: 1 });
  const device = rig.addDevice({ vnetid: 1 });
  const kernel = new StaleKernel(rig);
  const worker = workerOf(rig, kernel);
  const send = (count: number) => {
    kernel.link = Array.from({ length: count }, () => frame);
    transmit(worker, device);
  };
  return { rig, kernel, device, send };
}

const dropped = (rig: CoreRig, device: number) =>
  dropNames.flatMap((name, reason) => {
    const count = rig.deviceCount(device, reason);
    return count > 0 ? [[name, count]] : [];
  });

const {
  ECONNREFUSED,
  EHOSTUNREACH,
  ENETUNREACH,
  EMSGSIZE,
  EHOSTDOWN,
  ENONET,
  EPROTO,
  ENOPROTOOPT,
  EOPNOTSUPP,
} = errno;
const stale = [
  ECONNREFUSED,
  EHOSTUNREACH,
  ENETUNREACH,
  EMSGSIZE,
  EHOSTDOWN,
  ENONET,
  EPROTO,
  ENOPROTOOPT,
  EOPNOTSUPP,
  errno.EACCES,
];

sendErrors('each that ICMP can leave behind: once, and several times before one send', () => {
  for (const failure of stale) {
    for (const times of [1, 2, 4]) {
      const { rig, kernel, device, send } = start();
      kernel.pending = new Array<number>(times).fill(failure);
      send(8);
      const what = `${errno.errnoName(failure)} ${times} times`;
      assert.equal(dropped(rig, device), [], what);
      assert.equal(
        [kernel.sent, kernel.calls, rig.deviceCount(device, layout.COUNTER_TX_RETRIES)],
        [8, 1 + times, times],
        what,
      );
    }
  }
});

sendErrors('one that does not go away is the message’s own, and costs that message alone', () => {
  const names = new Map([
    [EMSGSIZE, 'tx_underlay_mtu'],
    [ENETUNREACH, 'tx_unreachable'],
    [EHOSTUNREACH, 'tx_unreachable'],
    [errno.EACCES, 'tx_not_permitted'],
    [ECONNREFUSED, 'tx_underlay_error'],
  ]);
  for (const [failure, name] of names) {
    const { rig, kernel, device, send } = start();
    kernel.pending = new Array<number>(5).fill(failure);
    send(8);
    assert.equal(dropped(rig, device), [[name, 1]]);
    assert.is(kernel.sent, 7);
    assert.is(rig.deviceCount(device, layout.COUNTER_TX_FRAMES), 7);
  }
});

sendErrors('errors come at random: every frame is sent, whatever was said of others', () => {
  const random = new Xorshift(0x5eed);
  const { rig, kernel, device, send } = start();
  for (let round = 0; round < 2000; round++) {
    const before = random.below(4);
    kernel.pending = Array.from({ length: before }, () => stale[random.below(stale.length)]!);
    send(1 + random.below(layout.BATCH_MAX));
  }
  assert.equal(dropped(rig, device), []);
  assert.is(rig.deviceCount(device, layout.COUNTER_TX_FRAMES), kernel.sent);
  assert.ok(rig.deviceCount(device, layout.COUNTER_TX_RETRIES) > 2000);
});

sendErrors.run();
