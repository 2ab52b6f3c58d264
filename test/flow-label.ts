/** Flow labels of NVGRE over IPv6 where the kernel takes none: frames go on without. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ipNativeBytes } from '../src/ip.js';
import { AF_INET6, IPPROTO_IPV6, SOCK_DGRAM } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { inNamespace } from '../src/sys/netns.js';
import { type Host, Hosts, underlay, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';

const flowLabel = suite('flow labels');
const VSID = 0x1007;
const inner = { a: '198.51.100.1', b: '198.51.100.2' } as const;
// linux/in6.h
const IPV6_FLOWLABEL_MGR = 32;
const IPV6_FL_A_GET = 0;
const IPV6_FL_S_EXCL = 1;
const IPV6_FL_F_CREATE = 1;
const REQUEST_BYTES = 32;

/** A socket of somebody else on the host that has leased a label for itself alone: the kernel refuses all others then. */
function lease(host: Host, to: string): number {
  return inNamespace(host.namespace, () => {
    const fd = must(libc.socket(AF_INET6, SOCK_DGRAM, 0), 'socket');
    const request = new Uint8Array(REQUEST_BYTES);
    request.set(ipNativeBytes(to));
    const view = new DataView(request.buffer);
    view.setUint32(16, 0x12345, false);
    view.setUint8(20, IPV6_FL_A_GET);
    view.setUint8(21, IPV6_FL_S_EXCL);
    view.setUint16(22, IPV6_FL_F_CREATE, true);
    must(
      libc.setsockopt(fd, IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, request, request.length),
      'IPV6_FLOWLABEL_MGR',
    );
    return fd;
  });
}

testWith(
  flowLabel,
  ['root', '/dev/net/tun', 'ping'],
  'nvgre over IPv6: somebody has leased a label for himself, and nothing is lost',
  async () => {
    const hosts = new Hosts();
    let leased: number | undefined;
    try {
      const [a, b] = [await hosts.daemon('a'), await hosts.daemon('b')];
      await a.createOverlay(hosts.a, 'ov0', VSID, underlay[6].a, underlay[6].b, 'nvgre');
      await b.createOverlay(hosts.b, 'ov0', VSID, underlay[6].b, underlay[6].a, 'nvgre');
      for (const side of ['a', 'b'] as const) hosts.address(side, 'ov0', `${inner[side]}/24`);
      const ping = (...words: string[]) => hosts.a.attempt('ping', '-q', '-W', '1', ...words, inner.b);
      await until('the hosts see each other', 5000, () => ping('-c', '1').status === 0);
      const unlabelled = async () => Number((await a.stats()).overlays.ov0!.counters.tx_unlabelled);
      assert.is(await unlabelled(), 0);
      leased = lease(hosts.a, underlay[6].b);
      assert.match(ping('-c', '10', '-i', '0.01').output, / 0% packet loss/);
      assert.ok((await unlabelled()) >= 10, `${await unlabelled()} without a label`);
      assert.equal((await a.stats()).overlays.ov0!.drops.tx_underlay_error, undefined);
    } finally {
      if (leased !== undefined) closeFd(leased);
      await hosts.close();
    }
  },
);

flowLabel.run();
