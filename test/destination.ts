/** Destination kinds: Ethernet, IP and port in all seven combinations, as text, as JSON and through a device. */
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { DESTINATION_ETHERNET, DESTINATION_IP, DESTINATION_PORT } from '../src/encap/plugin.js';
import { EncapRegistry } from '../src/encap/registry.js';
import { vxlan } from '../src/encap/vxlan.js';
import { OverlayError } from '../src/errors.js';
import { parseIp } from '../src/ip.js';
import {
  checkRoute,
  type Destination,
  destinationForm,
  formatDestination,
  parseDestination,
} from '../src/target/destination.js';
import { formatMac } from '../src/target/mac.js';
import { until } from './harness/hosts.js';
import { assertRefused, MemoryOverlay } from './harness/memory-overlay.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';

const destination = suite('destination kinds');
const KINDS = [1, 2, 3, 4, 5, 6, 7];

/** The parts of a kind, out of whole ones. */
function partsOf(kinds: number, whole: Required<Omit<Destination, 'options'>>): Destination {
  return {
    ...(kinds & DESTINATION_ETHERNET ? { mac: whole.mac } : {}),
    ...(kinds & DESTINATION_IP ? { ip: whole.ip } : {}),
    ...(kinds & DESTINATION_PORT ? { port: whole.port } : {}),
  };
}

const whole = { mac: '02:08:20:01:02:03', ip: '2001:db8::9', port: 4789 };

destination('options in braces behind it', () => {
  const given = { ip: '192.0.2.1', port: 6081, options: '0102:3:0a0b0c0d+1:2:' };
  assert.is(formatDestination(given), '192.0.2.1:6081{0102:3:0a0b0c0d+1:2:}');
  const kinds = DESTINATION_IP | DESTINATION_PORT;
  assert.equal(parseDestination(formatDestination(given), kinds), given);
  for (const text of ['192.0.2.1:6081{', '192.0.2.1:6081}', '{1:2:}', '192.0.2.1{1:2:}:6081']) {
    assert.throws(() => parseDestination(text, kinds), /is not ip:port/, text);
  }
});

destination('every combination is written and read back', () => {
  const macs = fc.integer({ min: 0, max: 2 ** 48 - 1 }).map(formatMac);
  const ips = fc.oneof(
    fc.ipV4().filter((ip) => ip !== '0.0.0.0'),
    fc.ipV6().filter((ip) => !/^[0:]+(:[0-9.]+)?$/.test(ip) && /^[3-9a-e]/.test(ip)),
  );
  const wholes = fc.record({ mac: macs, ip: ips.map(parseIp), port: fc.integer({ min: 1, max: 65535 }) });
  fc.assert(
    fc.property(wholes, fc.constantFrom(...KINDS), (given, kinds) => {
      const parts = partsOf(kinds, given);
      assert.equal(parseDestination(formatDestination(parts), kinds), parts);
    }),
    { numRuns: 5000 },
  );
});

destination('text that is not one is refused and told the form', () => {
  const forms = KINDS.map(destinationForm);
  assert.equal(forms, ['mac', 'ip', 'mac,ip', 'port', 'mac,port', 'ip:port', 'mac,ip:port']);
  const bad = [
    '192.0.2.1', // illumos' bug 74: a port is missing, and it said nothing
    '192.0.2.1:',
    ':4789',
    '192.0.2.1:0',
    '192.0.2.1:65536',
    '192.0.2.1:4789x',
    '192.0.2:4789',
    '2001:db8::9:4789', // illumos' bug 73: without brackets nobody can tell
    '[2001:db8::9]',
    '[2001:db8::9]4789',
    '[192.0.2.1:4789',
    '0.0.0.0:4789',
    '[::]:4789',
    '255.255.255.255:4789',
    '02:08:20:01:02:03,192.0.2.1:4789',
    '',
    ',',
    'drop ',
    'x'.repeat(10_000),
  ];
  for (const text of bad) {
    assert.throws(
      () => parseDestination(text, 6),
      (error: unknown) =>
        error instanceof OverlayError && error.errno === 'EINVAL' && error.message.includes('ip:port'),
      text,
    );
  }
  assert.equal(parseDestination('[2001:db8::9]:4789', 6), { ip: '2001:db8::9', port: 4789 });
  assert.equal(parseDestination('2001:db8::9', 2), { ip: '2001:db8::9' });
});

destination('a route has what the kinds say, no more and no less, and a list is bounded', () => {
  for (const kinds of KINDS) {
    for (const given of KINDS) {
      const check = () => checkRoute(partsOf(given, whole), kinds);
      if (given === kinds) assert.equal(check(), partsOf(kinds, whole));
      else assert.throws(check, /(is missing|does not take)/, `${given} for ${kinds}`);
    }
    const one = partsOf(kinds, whole);
    assert.equal(checkRoute({ replicate: [one, one] }, kinds), { replicate: [one] }, 'each once');
    assert.equal(checkRoute({ spread: [one] }, kinds), { spread: [one] });
    assert.throws(() => checkRoute({ replicate: [] }, kinds), /1 to 1024/);
    assert.throws(() => checkRoute({ spread: Array.from({ length: 1025 }, () => one) }, kinds), /not 1025/);
  }
});

destination(
  'a device of each combination looks up, sets and shows; a plugin that cannot is ENOTSUP',
  async () => {
    const encaps = new EncapRegistry();
    // The devices listen on an IPv4 address.
    const ours = { ...whole, ip: '192.0.2.9' };
    for (const destinations of KINDS) {
      const rename = (name: string) => name.replace('vxlan', `kind${destinations}`);
      const back = (name: string) => name.replace(`kind${destinations}`, 'vxlan');
      encaps.register({
        ...vxlan,
        name: `kind${destinations}`,
        destinations,
        properties: vxlan.properties.map(rename),
        operations: {
          ...vxlan.operations,
          getprop: (properties, name) => vxlan.operations.getprop(properties, back(name)),
          setprop: (properties, name, value) => vxlan.operations.setprop(properties, back(name), value),
          propinfo: (name) => ({ ...vxlan.operations.propinfo(back(name)), name }),
        },
      });
    }
    const plugin = new ScriptedLookup(() => 'drop');
    const memory = await MemoryOverlay.start({ encaps, plugins: [plugin], poolBytes: 4 * 1024 * 1024 });
    try {
      const { overlay } = memory;
      for (const kinds of KINDS) {
        const encap = `kind${kinds}`;
        const name = `ov${kinds}`;
        const mac = 0x020000000000 + kinds;
        const properties = { [`${encap}/listen_ip`]: '127.0.0.1', [`${encap}/listen_port`]: 20_000 + kinds };
        await overlay.createOverlay({ name, encap, search: 'scripted', vnetid: kinds, properties });
        assert.is(overlay.info(name).needs, kinds);
        overlay.cacheSet(name, mac, partsOf(kinds, ours));
        await until('valid', 2000, () => overlay.cacheGet(name, mac).state === 'valid');
        assert.equal(overlay.cacheGet(name, mac).route, partsOf(kinds, ours));
        for (const other of KINDS.filter((each) => each !== kinds)) {
          await assertRefused(
            () => overlay.cacheSet(name, mac, partsOf(other, ours)),
            'EINVAL',
            'bad_destination',
          );
        }
        assert.equal(overlay.cacheGet(name, mac).route, partsOf(kinds, ours), 'nothing has changed');
        for (const search of ['direct', 'files']) {
          const isServed = (kinds & DESTINATION_ETHERNET) === 0;
          const isServedByDirect = isServed && (kinds & DESTINATION_IP) !== 0;
          if (search === 'direct' ? isServedByDirect : isServed) continue;
          await assertRefused(
            overlay.create('other', encap, search, 100),
            'ENOTSUP',
            'destination_not_supported',
            /needs something else/,
          );
        }
      }
    } finally {
      await memory.close();
    }
  },
);

destination.run();
