/** Our daemon with itself as the peer: every encapsulation, over IPv4 and IPv6. */
import { suite } from 'uvu';
import { createDirect, deleteDirect } from './harness/direct.js';
import { Hosts } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { Shown } from './harness/shown.js';
import { GUEST_MTU, seeEachOther } from './harness/traffic.js';

const ownPeer = suite('overlayd as the peer');
const needs = ['root', '/dev/net/tun', 'ping'];
const shown = new Shown('own-peer');

testWith(ownPeer, needs, 'each encapsulation: ping, TCP, UDP and mDNS, both ways', async () => {
  const hosts = new Hosts();
  try {
    const [a, b] = await Promise.all([hosts.daemon('a'), hosts.daemon('b')]);
    for (const place of shown.places('direct')) {
      const [encapsulation, family] = place;
      const request = { encapsulation, family, vnetid: 0x4242, properties: { mtu: `${GUEST_MTU}` } };
      const guests = [
        await createDirect(hosts, 'a', a, request),
        await createDirect(hosts, 'b', b, request),
      ] as const;
      await seeEachOther(...guests);
      await shown.show('direct', place, guests);
      for (const daemon of [a, b]) await deleteDirect(daemon);
    }
  } finally {
    await hosts.close();
  }
});

testWith(ownPeer, needs, 'all that is to be shown has been', () => shown.assertAll());

ownPeer.run();
