/**
 * The MTUs that are met, from the least that IPv4 hosts must take to jumbo frames, with every offload. Tagged frames are the core's
 * tests' (`test/offload.ts`): not every kernel has VLAN links.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { assertBooks } from './harness/books.js';
import { Hosts, underlay } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { transfer } from './harness/transfer.js';

const edges = suite('MTU edges');
const BYTES = 6 * 1024 * 1024;
/** Of the overlay's link; the underlay has room for the largest, with its tag and the outer headers. */
const MTUS = [576, 1280, 1450, 8900];
const UNDERLAY_MTU = 9000;
const sides = ['a', 'b'] as const;

testWith(
  edges,
  ['root', '/dev/net/tun', 'ip'],
  `${MTUS.join(', ')}: streams and datagrams arrive as they were sent`,
  async () => {
    const hosts = new Hosts();
    try {
      for (const side of sides) {
        const { netlink } = hosts[side];
        netlink.setLink(netlink.getLink('underlay0').index, { mtu: UNDERLAY_MTU });
      }
      const daemons = { a: await hosts.daemon('a'), b: await hosts.daemon('b') };
      for (const [index, side] of sides.entries()) {
        const other = side === 'a' ? 'b' : 'a';
        await daemons[side].createOverlay(hosts[side], 'ov0', 7, underlay[4][side], underlay[4][other]);
        hosts.address(side, 'ov0', `198.51.100.${index + 1}/24`);
      }
      for (const mtu of MTUS) {
        for (const side of sides) {
          await daemons[side].client.put('/v1/overlays/ov0/properties/mtu', { value: mtu });
        }
        for (const from of sides) {
          const to = `198.51.100.${from === 'a' ? 2 : 1}`;
          // Datagrams of 1,000 bytes cannot be cut by the kernel for a link below that.
          const kinds = mtu < 1280 ? (['give'] as const) : undefined;
          await transfer({ hosts, from, to, seed: mtu, bytes: BYTES, ...(kinds ? { kinds } : {}) });
        }
      }
      for (const side of sides) {
        await assertBooks(hosts[side], daemons[side], 'ov0', `${underlay[4][side]}:4789`);
        const { drops, counters } = (await daemons[side].stats()).overlays.ov0!;
        assert.equal(drops, {}, 'nothing was dropped');
        assert.ok(Number(counters.tx_super_frames) > 100 && Number(counters.rx_joined) > 1000);
      }
    } finally {
      await hosts.close();
    }
  },
);

edges.run();
