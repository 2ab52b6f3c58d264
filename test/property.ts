/** Property values: what is accepted, in which canonical form, and what is refused. */
import { isIPv4, isIPv6 } from 'node:net';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { vxlan } from '../src/encap/vxlan.js';
import { parseIp } from '../src/ip.js';
import { mtuInfo, vnetidInfo } from '../src/overlay/properties.js';
import {
  formatPossible,
  type PropertyInfo,
  PropertyStore,
  type PropertyType,
  parseProperty,
  propertyToJson,
} from '../src/property.js';
import { direct } from '../src/varpd/direct.js';
import { assertRefused } from './harness/memory-overlay.js';

const properties = suite('properties');

const info = (type: PropertyType, more: Partial<PropertyInfo> = {}): PropertyInfo => ({
  name: `test/${type}`,
  type,
  isRequired: false,
  isReadable: true,
  isWritable: true,
  ...more,
});

const listenIp = vxlan.operations.propinfo('vxlan/listen_ip');
const listenPort = vxlan.operations.propinfo('vxlan/listen_port');
const [destIp, destPort] = direct.create(vxlan.destinations).properties.infos as [PropertyInfo, PropertyInfo];

function accepts(type: PropertyInfo, cases: readonly [input: unknown, value: bigint | string][]): void {
  for (const [input, value] of cases) {
    assert.is(parseProperty(type, input), value, `${type.name} ${JSON.stringify(input)}`);
  }
}

async function refuses(type: PropertyInfo, inputs: readonly unknown[], why?: RegExp): Promise<void> {
  for (const input of inputs) {
    const error = await assertRefused(() => parseProperty(type, input), 'EINVAL', 'bad_property_value', why);
    assert.ok(error.message.startsWith(`${type.name} cannot be `), error.message);
    assert.ok(error.message.length < 600, 'a long value is not repeated in full');
  }
}

/** Text that looks like a number to somebody. */
const notWhole = [
  '',
  ' ',
  ' 1',
  '1 ',
  '1\n',
  '12abc',
  'abc',
  '1e3',
  '1E3',
  '0x10',
  '0b1',
  '0o7',
  '1.0',
  '1.',
  '.5',
  '1_000',
  '1,000',
  '+1',
  '--1',
  '-',
  '1n',
  'NaN',
  'Infinity',
  '１',
  '1\0',
  '9'.repeat(21),
  '9'.repeat(1000),
];

/** Values of another JSON type. */
const notText = [null, undefined, true, false, [], [1], ['1'], {}, { value: 1 }];

properties('uint: 0 to 2^64 - 1, decimal digits and nothing else', async () => {
  const uint = info('uint');
  accepts(uint, [
    ['0', 0n],
    ['1', 1n],
    ['00012', 12n],
    ['9007199254740991', 2n ** 53n - 1n],
    ['9007199254740993', 2n ** 53n + 1n],
    ['9223372036854775808', 2n ** 63n],
    ['18446744073709551615', 2n ** 64n - 1n],
    [0, 0n],
    [2 ** 53 - 1, 2n ** 53n - 1n],
  ]);
  await refuses(uint, [...notWhole, ...notText], /whole decimal number/);
  await refuses(uint, [2 ** 53, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 1e300], /whole decimal number/);
  await refuses(uint, ['-1', '18446744073709551616', '99999999999999999999', -1], /out of range/);
});

properties('int: -2^63 to 2^63 - 1', async () => {
  const int = info('int');
  accepts(int, [
    ['-1', -1n],
    ['-9223372036854775808', -(2n ** 63n)],
    ['9223372036854775807', 2n ** 63n - 1n],
    [-1, -1n],
    [-0, 0n],
  ]);
  await refuses(int, [...notWhole, ...notText], /whole decimal number/);
  await refuses(int, ['9223372036854775808', '-9223372036854775809'], /out of range/);
});

properties('ranges: both ends are in, and the refusal says them', async () => {
  const mtu = mtuInfo({ mtuMax: 8900 });
  accepts(mtu, [
    ['576', 576n],
    ['8900', 8900n],
  ]);
  await refuses(mtu, ['575', '8901', 0], /it may be 576-8900/);
  const vnetid = vnetidInfo({ encap: vxlan });
  accepts(vnetid, [
    ['0', 0n],
    ['16777214', 0xfffffen],
    [0xffffff, 0xffffffn],
  ]);
  await refuses(vnetid, ['16777216', 0x1000000, '18446744073709551615'], /it may be 0-16777215/);
  await refuses(vnetid, ['-1', -1, 'red', '0xffffff']);
  for (const port of [listenPort, destPort]) {
    accepts(port, [
      ['1', 1n],
      [65535, 65535n],
    ]);
    await refuses(port, ['0', 0, '65536', 65536], /it may be 1-65535/);
  }
});

properties('a choice of strings', async () => {
  const choice = info('string', { possible: ['red', 'blue'] });
  accepts(choice, [['red', 'red']]);
  await refuses(choice, ['green', 'Red', 'red '], /it may be red,blue/);
  assert.is(formatPossible([{ min: 1n, max: 2n }, 'x']), '1-2,x');
});

properties('string: 1 to 255 bytes of text', async () => {
  const text = info('string');
  const longest = 'x'.repeat(255);
  const longestWide = `${'é'.repeat(127)}x`;
  accepts(text, [
    ['a', 'a'],
    [' ', ' '],
    [longest, longest],
    [longestWide, longestWide],
  ]);
  await refuses(text, ['x'.repeat(256), 'é'.repeat(128), 'x'.repeat(100_000)], /at most 255 bytes/);
  await refuses(text, ['', 'a\0b', 1, ...notText], /text, not empty/);
});

properties('ether: six octets, in lower case with leading zeros', async () => {
  const ether = info('ether');
  accepts(ether, [
    ['2:8:20:1:2:3', '02:08:20:01:02:03'],
    ['02:08:20:AA:bB:Cc', '02:08:20:aa:bb:cc'],
  ]);
  const bad = [
    '',
    '2:8:20:1:2',
    '2:8:20:1:2:3:4',
    '2:8:20:1:2:',
    '002:8:20:1:2:3',
    'g:0:0:0:0:0',
    '2-8-20-1-2-3',
  ];
  await refuses(ether, [...bad, ' 2:8:20:1:2:3', 1, ...notText], /MAC address such as/);
});

properties('ip: one canonical form', async () => {
  const ip = info('ip');
  accepts(ip, [
    ['1.2.3.4', '1.2.3.4'],
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    ['::ffff:1.2.3.4', '1.2.3.4'],
    ['::FFFF:102:304', '1.2.3.4'],
    ['0:0:0:0:0:ffff:1.2.3.4', '1.2.3.4'],
    ['::', '::'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['0000::0001', '::1'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8::1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['::1.2.3.4', '::102:304'],
    ['fe80::1', 'fe80::1'],
  ]);
  await refuses(ip, [
    '',
    ' 1.2.3.4',
    '1.2.3.4 ',
    '1.2.3',
    '1.2',
    '16909060',
    '0x1.2.3.4',
    '01.2.3.4',
    '1.2.3.04',
    '0177.0.0.1',
    '1.2.3.256',
    '1.2.3.4.5',
    '1.2.3.4/24',
    '1.2.3.4:4789',
    '::ffff:010.1.1.1',
    '::ffff:0177.0.0.1',
    '::ffff:0x7f.0.0.1',
    '::ffff:1.2.3',
    '::1/64',
    'fe80::1%eth0',
    'fe80::1%1',
    '[::1]',
    '1::2::3',
    ':::',
    '12345::',
    'g::',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    'localhost',
    'example.org',
    '١.2.3.4',
    1,
    ...notText,
  ]);
});

properties('ip: what the system calls an address we do too, and the form is stable', () => {
  const nearly = fc.stringMatching(/^[0-9a-fx:.]{0,20}$/);
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), nearly), (text) => {
      let canonical: string;
      try {
        canonical = parseIp(text);
      } catch {
        assert.is(isIPv4(text) || isIPv6(text), false, `${text} is an address`);
        return;
      }
      assert.ok(isIPv4(text) || isIPv6(text), `${text} is no address`);
      assert.is(parseIp(canonical), canonical);
    }),
    { numRuns: 10_000 },
  );
});

properties('vxlan/listen_ip: unicast, unspecified, loopback; bug 20 of illumos done right', async () => {
  const same = [
    '10.0.0.225',
    '10.0.0.239',
    '10.0.0.224',
    '223.255.255.255',
    '240.0.0.1',
    '0.0.0.0',
    '127.0.0.1',
    '::',
    '::1',
    'fe80::1',
    'fd00::e0',
    '2001:db8::1',
    '2003::1',
  ];
  accepts(
    listenIp,
    same.map((ip) => [ip, ip]),
  );
  await refuses(
    listenIp,
    ['224.0.0.1', '239.255.255.255', '232.10.0.0', '::ffff:224.0.0.1', 'ff02::1', 'ff00::', 'FF0E::1'],
    /it is a multicast address/,
  );
  await refuses(listenIp, ['2002::', '2002:c000:201::1', '2002:ffff::'], /6to4 address/);
  await refuses(listenIp, ['::1.2.3.4', '::102:304', '::2', '::224.0.0.1'], /IPv4-compatible/);
});

properties('direct/dest_ip: multicast is allowed, 6to4 and IPv4-compatible are not', async () => {
  const same = ['10.0.0.225', '224.0.0.1', '239.1.2.3', 'ff02::1', 'ff0e::1', '::1', '0.0.0.0', '::'];
  accepts(
    destIp,
    same.map((ip) => [ip, ip]),
  );
  await refuses(destIp, ['2002::1'], /6to4 address/);
  await refuses(destIp, ['::1.2.3.4', '::2'], /IPv4-compatible/);
});

properties('set, then get: the same value, for 20,000 random valid ones', () => {
  const canonicalIp = fc.oneof(fc.ipV4(), fc.ipV6()).map(parseIp);
  const cases = fc.oneof(
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((value) => ['uint', String(value), value] as const),
    fc
      .bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
      .map((value) => ['int', String(value), value] as const),
    fc.maxSafeInteger().map((value) => ['int', value, BigInt(value)] as const),
    canonicalIp.map((value) => ['ip', value, value] as const),
    fc
      .string({ minLength: 1, maxLength: 60, unit: 'binary' })
      .filter((text) => !text.includes('\0'))
      .map((value) => ['string', value, value] as const),
    fc
      .uint8Array({ minLength: 6, maxLength: 6 })
      .map((bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':'))
      .map((value) => ['ether', value, value] as const),
  );
  fc.assert(
    fc.property(cases, ([type, input, value]) => {
      const one = info(type);
      const store = new PropertyStore([one]);
      store.set(one.name, input);
      assert.is(store.get(one.name), value);
      // What getprop shows can be given to setprop.
      const shown = propertyToJson(value);
      store.set(one.name, JSON.parse(JSON.stringify(shown)));
      assert.is(store.get(one.name), value);
    }),
    { numRuns: 20_000 },
  );
});

properties('anything at all: a value or EINVAL, for every type', async () => {
  const types = ['int', 'uint', 'ip', 'string', 'ether'] as const;
  const input = fc.oneof(
    fc.anything(),
    fc.string({ unit: 'binary' }),
    fc.double(),
    fc.constantFrom(...notWhole),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...types), input, async (type, value) => {
      try {
        parseProperty(info(type), value);
      } catch (error) {
        await assertRefused(() => Promise.reject(error), 'EINVAL', 'bad_property_value');
      }
    }),
    { numRuns: 10_000 },
  );
});

properties('JSON: whole numbers up to 2^53 - 1 are numbers, above that text', () => {
  const most = 2n ** 53n - 1n;
  assert.is(propertyToJson(most), Number.MAX_SAFE_INTEGER);
  assert.is(propertyToJson(-most), Number.MIN_SAFE_INTEGER);
  assert.is(propertyToJson(most + 1n), '9007199254740992');
  assert.is(propertyToJson(-most - 1n), '-9007199254740992');
  assert.is(propertyToJson(2n ** 64n - 1n), '18446744073709551615');
  assert.is(propertyToJson(0n), 0);
  assert.is(propertyToJson('192.0.2.1'), '192.0.2.1');
  assert.is(propertyToJson(undefined), null);
});

properties(
  'a store: defaults, required properties without a value, unknown and read-only names',
  async () => {
    const store = vxlan.operations.init();
    assert.is(store.get('vxlan/listen_port'), 4789n, 'a default');
    assert.is(store.get('vxlan/listen_ip'), undefined);
    assert.equal(store.missing(), ['vxlan/listen_ip'], 'a default is a value');
    store.set('vxlan/listen_ip', '::ffff:192.0.2.1');
    assert.equal(store.missing(), []);
    assert.is(store.get('vxlan/listen_ip'), '192.0.2.1');
    await assertRefused(() => store.set('vxlan/listen_ip', '224.0.0.1'), 'EINVAL', 'bad_property_value');
    assert.is(store.get('vxlan/listen_ip'), '192.0.2.1', 'a refused value changes nothing');
    for (const name of ['vxlan/nope', '', '__proto__', 'constructor', 'listen_ip']) {
      await assertRefused(() => store.get(name), 'ENOENT', 'no_such_property');
      await assertRefused(() => store.set(name, '1'), 'ENOENT', 'no_such_property');
    }
    const fixed = new PropertyStore([info('uint', { isWritable: false, default: 7n })]);
    await assertRefused(() => fixed.set('test/uint', 'red'), 'EPERM', 'property_read_only');
    assert.is(fixed.get('test/uint'), 7n);
  },
);

properties('two devices do not share values', () => {
  const [first, second] = [vxlan.operations.init(), vxlan.operations.init()];
  first.set('vxlan/listen_port', 1);
  assert.is(second.get('vxlan/listen_port'), 4789n);
});

properties.run();
