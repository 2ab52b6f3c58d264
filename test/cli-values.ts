/** Values of properties through the API and the command line: 64-bit numbers at both ends, MAC addresses, odd names. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { shortMac, shortMacs } from '../src/cli/short-mac.js';
import type { OverlayView } from '../src/control/view.js';
import type { EncapPlugin } from '../src/encap/plugin.js';
import { EncapRegistry } from '../src/encap/registry.js';
import { vxlan } from '../src/encap/vxlan.js';
import { type PropertyInfo, PropertyStore } from '../src/property.js';
import type { LookupPlugin } from '../src/varpd/plugin.js';
import { assertTyped, type Rig, withRig } from './harness/control-rig.js';
import { freePort, request } from './harness/memory-overlay.js';

const values = suite('values of properties');
const CLI = join(import.meta.dirname, '../src/cli/main.js');

const open = { isRequired: false, isReadable: true, isWritable: true, applies: 'live' } as const;
const MIN = -(2n ** 63n);
const MAX = 2n ** 63n - 1n;
const TOP = 2n ** 64n - 1n;
const infos: readonly PropertyInfo[] = [
  { ...open, name: 'wide/int', type: 'int', default: MIN, possible: [{ min: MIN, max: MAX }] },
  { ...open, name: 'wide/uint', type: 'uint', default: TOP, possible: [{ min: 0n, max: TOP }] },
  { ...open, name: 'wide/mac', type: 'ether' },
];
const lookup: LookupPlugin = {
  version: 1,
  name: 'wide',
  mode: 'point',
  properties: () => infos.map(({ name }) => name),
  create: () => ({
    properties: new PropertyStore(infos),
    start: () => {},
    stop: () => {},
    point: () => ({ ip: '127.0.0.2', port: 4789 }),
  }),
};
/** vxlan with a number of 64 bits besides its own properties. */
const own: PropertyInfo = { ...open, name: 'broad/uint', type: 'uint' };
const encap: EncapPlugin = {
  ...vxlan,
  name: 'broad',
  properties: [...vxlan.properties, own.name],
  operations: {
    ...vxlan.operations,
    init: () => new PropertyStore([...vxlan.operations.init().infos, own]),
    propinfo: (name) => (name === own.name ? own : vxlan.operations.propinfo(name)),
  },
};

function cli(
  socket: string,
  ...args: string[]
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [CLI, '-S', socket, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const texts = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      texts[stream] += text;
    });
  }
  return new Promise((resolve) => child.once('close', (status) => resolve({ status, ...texts })));
}

function withWide(work: (rig: Rig, port: number) => Promise<void>): Promise<void> {
  return withRig(async (rig) => work(rig, await freePort('127.0.0.1')), {
    plugins: [lookup],
    encaps: new EncapRegistry([vxlan, encap]),
  });
}

function wide(name: string, vnetid: number, port: number, properties: Record<string, unknown>) {
  const { properties: all, ...rest } = request(name, vnetid, port, { encap: 'broad', search: 'wide' });
  const listen = { 'vxlan/listen_ip': all['vxlan/listen_ip'], 'vxlan/listen_port': port };
  return { ...rest, properties: { ...listen, ...properties } };
}

/** Above 2^53 as text, below as a number. */
const ends: [bigint, string | number][] = [
  [0n, 0],
  [1n, 1],
  [2n ** 53n - 1n, 2 ** 53 - 1],
  [2n ** 53n, '9007199254740992'],
  [2n ** 53n + 1n, '9007199254740993'],
  [MAX, '9223372036854775807'],
  [2n ** 63n, '9223372036854775808'],
  [TOP, '18446744073709551615'],
];

values('the API: exact at both ends, of int and of uint, of encap and of lookup plugins', () =>
  withWide(async ({ client, call }, port) => {
    await client.post(
      '/v1/overlays',
      wide('ov0', 1, port, { 'wide/int': String(MIN), 'broad/uint': String(TOP) }),
    );
    const get = async (property: string) =>
      (
        await client.get<{ property: { value: unknown; default: unknown; possible: string } }>(
          `/v1/overlays/ov0/properties/${encodeURIComponent(property)}`,
        )
      ).property;
    assert.is((await get('broad/uint')).value, String(TOP));
    assert.is((await get('wide/uint')).default, String(TOP));
    assert.is((await get('wide/int')).possible, '-9223372036854775808-9223372036854775807');
    const signed = ends.filter(([number]) => number <= MAX);
    const negative = [...signed, [MIN, String(MIN)] as const].map(
      ([number, json]) =>
        [
          -number >= MIN && number > 0n ? -number : number,
          typeof json === 'number' ? -json || 0 : number > 0n ? `-${json}` : json,
        ] as const,
    );
    for (const [property, list] of [
      ['wide/uint', ends],
      ['broad/uint', ends],
      ['wide/int', signed],
      ['wide/int', negative],
    ] as const) {
      for (const [number, json] of list) {
        const path = `/v1/overlays/ov0/properties/${encodeURIComponent(property)}`;
        await client.put(path, { value: String(number) });
        assert.is((await get(property)).value, json, `${property} ${number}`);
        // What is read can be written again as it is.
        await client.put(path, { value: json });
        assert.is((await get(property)).value, json);
      }
    }
    const before = (await get('wide/uint')).value;
    for (const [property, value] of [
      ['wide/uint', String(TOP + 1n)],
      ['wide/uint', '-1'],
      ['wide/int', String(MAX + 1n)],
      ['wide/int', String(MIN - 1n)],
      ['wide/uint', '1e3'],
      ['wide/uint', '0x10'],
      ['wide/uint', '12abc'],
    ] as const) {
      const path = `/v1/overlays/ov0/properties/${encodeURIComponent(property)}`;
      assert.is(
        assertTyped(await call('PUT', path, JSON.stringify({ value })), value).code,
        'bad_property_value',
      );
    }
    // A JSON number that no JavaScript number holds exactly would be another by now.
    const path = `/v1/overlays/ov0/properties/${encodeURIComponent('wide/uint')}`;
    for (const text of ['9007199254740993', '18446744073709551615', '1.5']) {
      assert.is(assertTyped(await call('PUT', path, `{"value":${text}}`), text).code, 'bad_property_value');
    }
    assert.is((await get('wide/uint')).value, before);
  }),
);

values('the command line: the same digits in, in the table, with -p and in the document', () =>
  withWide(async ({ socket }, port) => {
    let vnetid = 0;
    for (const [int, uint] of [
      [MIN, 0n],
      [MAX, TOP],
      [-(2n ** 53n) - 1n, 2n ** 53n + 1n],
    ] as const) {
      const name = `ov${vnetid}`;
      const props = `vxlan/listen_ip=127.0.0.1,vxlan/listen_port=${port},wide/int=${int},wide/uint=${uint},broad/uint=${uint}`;
      const created = await cli(
        socket,
        'create-overlay',
        '-e',
        'broad',
        '-s',
        'wide',
        '-v',
        `${vnetid++}`,
        '-p',
        props,
        name,
      );
      assert.equal(created, { status: 0, stdout: '', stderr: '' });
      const shown = await cli(socket, 'show-overlay', '-p', '-o', 'property,value', name);
      const rows = new Map(
        shown.stdout
          .trimEnd()
          .split('\n')
          .map((line) => line.split(':') as [string, string]),
      );
      assert.equal(
        ['wide/int', 'wide/uint', 'broad/uint'].map((property) => rows.get(property)),
        [`${int}`, `${uint}`, `${uint}`],
      );
      const table = await cli(socket, 'show-overlay', name);
      assert.match(
        table.stdout,
        new RegExp(
          `^${name} +wide/int +rw +- +${int} +-9223372036854775808 +-9223372036854775808-9223372036854775807$`,
          'm',
        ),
      );
      assert.match(
        table.stdout,
        new RegExp(`^${name} +wide/uint +rw +- +${uint} +18446744073709551615 +0-18446744073709551615$`, 'm'),
      );
      const document: { overlays: Record<string, OverlayView> } = JSON.parse(
        (await cli(socket, 'show-overlay', '--json', name)).stdout,
      );
      const value = document.overlays[name]!.properties.find(
        ({ name: property }) => property === 'wide/int',
      )!.value;
      assert.is(value, String(int));
    }
    const refused = await cli(
      socket,
      'create-overlay',
      '-e',
      'broad',
      '-s',
      'wide',
      '-v',
      '9',
      '-p',
      `vxlan/listen_ip=127.0.0.1,wide/uint=${TOP + 1n}`,
      'ov9',
    );
    assert.is(refused.status, 1);
    assert.match(refused.stderr, /wide\/uint cannot be '18446744073709551616': it is out of range/);
  }),
);

values('MAC addresses without leading zeros, devices in the order in which they are named', () =>
  withWide(async ({ socket, client }, port) => {
    await client.post('/v1/overlays', wide('ov0', 1, port, { 'wide/mac': '02:08:20:00:0a:1B' }));
    await client.post('/v1/overlays', wide('ov1', 2, port, {}));
    const ask = async (...args: string[]) =>
      (await cli(socket, 'show-overlay', ...args)).stdout.trimEnd().split('\n');
    const macs = (await ask('-p', '-o', 'property,value', 'ov0')).filter((line) =>
      line.startsWith('wide/mac'),
    );
    assert.equal(macs, ['wide/mac:2\\:8\\:20\\:0\\:a\\:1b']);
    assert.equal(await ask('-f', '-p', '-o', 'link', 'ov1', 'ov0', 'ov1'), ['ov1', 'ov0', 'ov1']);
  }),
);

values('a MAC address is shortened wherever it stands in a destination, and nothing else is', () => {
  assert.is(shortMacs('02:08:20:01:02:03,[2001:db8::1]:4789'), '2:8:20:1:2:3,[2001:db8::1]:4789');
  assert.is(
    shortMacs('replicate{02:00:00:00:00:01,192.0.2.1:4789 00:00:00:00:00:00}'),
    'replicate{2:0:0:0:0:1,192.0.2.1:4789 0:0:0:0:0:0}',
  );
  for (const same of [
    '[0a:0b:0c:0d:0e:0f::1]:1',
    '[::0a:0b:0c:0d:0e:0f]:1',
    '10.0.0.1:80',
    '--',
    'drop',
    '*:*:*:*:*:*',
  ]) {
    assert.is(shortMacs(same), same);
  }
  const octet = fc.nat(255).map((byte) => byte.toString(16).padStart(2, '0'));
  fc.assert(
    fc.property(fc.array(octet, { minLength: 6, maxLength: 6 }), (octets) => {
      assert.is(
        shortMac(octets.join(':')),
        octets.map((each) => Number.parseInt(each, 16).toString(16)).join(':'),
      );
    }),
  );
});

values.run();
