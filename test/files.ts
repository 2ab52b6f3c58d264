/** `files`: the format of its file, what is refused and where, the order of a lookup, and a file that changes. */
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { optionsFault } from '../src/encap/geneve-options.js';
import { OverlayError } from '../src/errors.js';
import { checkRoute } from '../src/target/destination.js';
import { CHANGES_MAX, compare, type Difference, MOVES_MAX } from '../src/varpd/files/difference.js';
import { indexRecords, type Mappings } from '../src/varpd/files/mappings.js';
import { OPTION_TEXTS_MAX } from '../src/varpd/files/option-texts.js';
import { readRecords } from '../src/varpd/files/records.js';
import { files } from '../src/varpd/files.js';
import type { LookupInstance, LookupRequest, LookupServices } from '../src/varpd/plugin.js';
import { until } from './harness/hosts.js';
import { assertRefused } from './harness/memory-overlay.js';

const plugin = suite('files');
const IP = 2;
const IP_PORT = 6;
const NAME = '/etc/overlay.json';
/** Far more than a reload takes; only a failing test waits that long. */
const WAIT_MS = 20_000;

function finish<T>(steps: Generator<number, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
    assert.ok(step.value >= 0 && step.value <= 1, `${step.value} is no progress`);
  }
}

interface ParseOptions {
  readonly kinds?: number;
  readonly localIp?: string;
  readonly onReserved?: (key: string, at: { line: number; column: number }) => void;
}

function parse(text: string | Buffer, options: ParseOptions = {}): Mappings {
  const { kinds = IP_PORT, localIp, onReserved = () => {} } = options;
  const records = readRecords({
    bytes: Buffer.from(text),
    file: NAME,
    kinds,
    optionsFault,
    vtepFault: () => undefined,
    onReserved,
  });
  return finish(indexRecords(finish(records), localIp));
}

/** One instance on a real file; what it tells varpd, in order. */
class Rig {
  readonly folder = mkdtempSync(join(tmpdir(), 'files-'));
  readonly path = join(this.folder, 'overlay.json');
  readonly calls: string[] = [];
  readonly logs: string[] = [];
  readonly instance: LookupInstance;
  readonly services: LookupServices = {
    overlay: 'ov0',
    vnetid: 1n,
    set: () => this.calls.push('set'),
    invalidate: (mac) => this.calls.push(`invalidate ${mac}`),
    invalidateAll: () => this.calls.push('invalidateAll'),
    gratuitousArp: ({ mac, ip, vlan }) => this.calls.push(`arp ${ip} ${mac} ${vlan}`),
    peersChanged: () => this.calls.push(`peers ${[...this.instance.peers!()!].sort().join(' ')}`),
    degrade: (text) => this.calls.push(`degrade ${text}`),
    restore: () => this.calls.push('restore'),
    optionsFault,
    log: (level, message) => this.logs.push(`${level} ${message}`),
  };

  constructor(kinds = IP_PORT) {
    this.instance = files.create(kinds);
    this.instance.properties.set('files/config', this.path);
  }

  write(content: unknown, path = this.path): void {
    writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  }

  /** As careful programs do: another file takes the name. */
  replace(content: unknown): void {
    this.write(content, `${this.path}.new`);
    renameSync(`${this.path}.new`, this.path);
  }

  async start(): Promise<void> {
    await this.instance.start(this.services);
  }

  async seen(call: string | RegExp): Promise<void> {
    const isIt = (one: string): boolean => (typeof call === 'string' ? one === call : call.test(one));
    try {
      await until(String(call), WAIT_MS, () => this.calls.some(isIt));
    } catch (error) {
      throw new Error(`${error}; there were: ${this.calls.join(', ')}`);
    }
  }

  ip(mac: string): string | undefined {
    const answer = this.instance.lookup!(request({ destination: mac }));
    return typeof answer === 'object' && 'ip' in answer ? answer.ip : undefined;
  }

  async close(): Promise<void> {
    await this.instance.stop();
    for (const folder of [this.folder, `${this.folder}-old`])
      rmSync(folder, { recursive: true, force: true });
  }
}

async function withRig(work: (rig: Rig) => Promise<void>, kinds?: number): Promise<void> {
  const rig = new Rig(kinds);
  try {
    await work(rig);
  } finally {
    await rig.close();
  }
}

const FIRST = '02:08:20:00:00:01';
const SECOND = '02:08:20:00:00:02';
const THIRD = '02:08:20:00:00:03';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

function request(changes: Partial<LookupRequest>): LookupRequest {
  const destination = changes.destination ?? FIRST;
  const isGroup = Number.parseInt(destination.slice(0, 2), 16) % 2 === 1;
  return {
    id: '1',
    overlay: 'ov0',
    vnetid: 1n,
    source: SECOND,
    destination,
    kind: destination === BROADCAST ? 'broadcast' : isGroup ? 'multicast' : 'unicast',
    etherType: 0x0800,
    isDhcp: false,
    vlan: 0,
    headerBytes: 14,
    payloadBytes: 100,
    ...changes,
  };
}

/** Three MAC addresses as in the manual, one of which asks another for its address. */
const manual = {
  '2:8:20:0:0:1': { arp: '10.0.0.1', ndp: 'fe80::1', ip: '2001:db8::1', port: 4789 },
  '02:08:20:00:00:02': { arp: '10.0.0.2', ndp: 'FE80:0::2', ip: '192.0.2.2', port: 4789 },
  '2:8:20:0:0:3': { 'dhcp-proxy': '2:8:20:0:0:2', ip: '192.0.2.2', port: 4790, arp: '10.0.0.3' },
};

plugin("the manual's three MAC addresses", async () => {
  await withRig(async (rig) => {
    rig.write(manual);
    await rig.start();
    const { instance } = rig;
    assert.equal(instance.lookup!(request({ destination: FIRST })), { ip: '2001:db8::1', port: 4789 });
    assert.equal(instance.lookup!(request({ destination: SECOND })), { ip: '192.0.2.2', port: 4789 });
    assert.equal(instance.lookup!(request({ destination: THIRD })), { ip: '192.0.2.2', port: 4790 });
    assert.equal(instance.peers!(), ['2001:db8::1', '192.0.2.2']);
    const asked = request({});
    assert.is(instance.arp!({ family: 4, ip: '10.0.0.3', request: asked }), THIRD);
    assert.is(instance.arp!({ family: 6, ip: 'fe80::2', request: asked }), SECOND);
    assert.is(instance.arp!({ family: 4, ip: '10.0.0.4', request: asked }), undefined);
    assert.is(instance.arp!({ family: 6, ip: 'fe80::3', request: asked }), undefined);
    assert.is(instance.dhcp!(request({ source: THIRD })), SECOND);
    assert.is(instance.dhcp!(request({ source: FIRST })), undefined);
    assert.is(instance.dhcp!(request({ source: '02:00:00:00:00:09' })), undefined);
    assert.equal(rig.calls, []);
    assert.match(rig.logs.join(), /^info \S+overlay\.json: 3 mappings to 3 VTEPs in \d+\.\d s$/);
  });
});

plugin(
  'the order of a lookup: proxies first, then the mapping; nothing floods unless it is told to',
  async () => {
    await withRig(async (rig) => {
      rig.write({ ...manual, '01:00:5e:00:00:05': { ip: '192.0.2.5', port: 1 } });
      await rig.start();
      const ask = (changes: Partial<LookupRequest>): unknown => rig.instance.lookup!(request(changes));
      assert.is(ask({ etherType: 0x0806, destination: BROADCAST }), 'proxy-arp');
      assert.equal(ask({ etherType: 0x0806, destination: FIRST }), { ip: '2001:db8::1', port: 4789 });
      assert.is(ask({ etherType: 0x86dd, destination: '33:33:ff:00:00:01' }), 'proxy-ndp');
      assert.is(ask({ etherType: 0x86dd, destination: '33:33:00:00:00:01' }), 'proxy-ndp');
      assert.is(ask({ isDhcp: true, destination: BROADCAST, source: THIRD }), 'proxy-dhcp');
      assert.is(ask({ isDhcp: true, destination: BROADCAST, source: FIRST }), 'drop');
      assert.is(ask({ etherType: 0x0800, destination: BROADCAST, source: THIRD }), 'drop');
      assert.is(ask({ etherType: 0x0800, destination: BROADCAST, source: FIRST }), 'drop');
      assert.is(ask({ etherType: 0x88cc, destination: BROADCAST }), 'drop');
      assert.is(ask({ etherType: 0x0800, destination: '01:00:5e:00:00:01' }), 'drop');
      assert.equal(ask({ destination: '01:00:5e:00:00:05' }), { ip: '192.0.2.5', port: 1 });
      assert.is(ask({ destination: '02:00:00:00:00:09' }), 'unknown');
      assert.equal(ask({ etherType: 0x86dd, destination: FIRST }), { ip: '2001:db8::1', port: 4789 });
      assert.equal(ask({ etherType: 0, destination: FIRST }), { ip: '2001:db8::1', port: 4789 });
    });
  },
);

plugin('flood: what no proxy answers goes to every VTEP but our own', async () => {
  await withRig(async (rig) => {
    rig.write({ flood: true, ...manual });
    rig.instance.properties.set('files/local_ip', '::ffff:192.0.2.2');
    await rig.start();
    const ask = (changes: Partial<LookupRequest>): unknown => rig.instance.lookup!(request(changes));
    const all = { replicate: [{ ip: '2001:db8::1', port: 4789 }] };
    assert.equal(ask({ destination: BROADCAST, source: FIRST }), all);
    assert.is(ask({ isDhcp: true, destination: BROADCAST, source: THIRD }), 'proxy-dhcp');
    assert.equal(ask({ destination: BROADCAST, source: THIRD }), all);
    assert.equal(ask({ etherType: 0x88cc, destination: BROADCAST }), all);
    assert.equal(ask({ destination: '01:00:5e:00:00:01' }), all);
    assert.equal(ask({ etherType: 0x86dd, destination: '33:33:00:00:00:01' }), all);
    assert.is(ask({ etherType: 0x86dd, destination: '33:33:ff:00:00:01' }), 'proxy-ndp');
    assert.is(ask({ etherType: 0x0806, destination: BROADCAST }), 'proxy-arp');
    assert.is(ask({ destination: '02:00:00:00:00:09' }), 'unknown');
    // A mapping to this very host is answered all the same, and it is a peer.
    assert.equal(ask({ destination: SECOND }), { ip: '192.0.2.2', port: 4789 });
    assert.equal(rig.instance.peers!(), ['2001:db8::1', '192.0.2.2']);
  });
});

plugin('flood: all the forms of the list', () => {
  const floods: [flood: unknown, list: string[]][] = [
    [true, ['2001:db8::1 4789', '192.0.2.2 4789', '192.0.2.2 4790']],
    [false, []],
    [[], []],
    // Without a port: every endpoint of the file with the address, each once.
    [
      ['192.0.2.2', '::ffff:192.0.2.2'],
      ['192.0.2.2 4789', '192.0.2.2 4790'],
    ],
    [
      ['192.0.2.2', '2001:db8::1'],
      ['192.0.2.2 4789', '192.0.2.2 4790', '2001:db8::1 4789'],
    ],
    [
      [{ port: 1, ip: '192.0.2.9', name: { reserved: [] } }, '2001:db8:0::1'],
      ['192.0.2.9 1', '2001:db8::1 4789'],
    ],
    [
      [{ ip: '192.0.2.2', port: 4789 }, '192.0.2.2'],
      ['192.0.2.2 4789', '192.0.2.2 4790'],
    ],
  ];
  for (const [flood, list] of floods) {
    const { parts } = parse(JSON.stringify({ ...manual, flood }));
    assert.equal(
      parts.flood.map(({ ip, port }) => `${ip} ${port}`),
      list,
      JSON.stringify(flood),
    );
    if (list.length > 0) checkRoute({ replicate: parts.flood }, IP_PORT);
  }
  const alone = parse('{"flood": [{"ip": "192.0.2.9", "port": 4789}, "192.0.2.9"]}');
  assert.equal(alone.parts.flood, [{ ip: '192.0.2.9', port: 4789 }]);
  assert.equal(alone.peers(), ['192.0.2.9'], 'those that only the list has are peers too');
  const other = parse(JSON.stringify({ ...manual, flood: ['192.0.2.2'] }), { localIp: '192.0.2.2' });
  assert.equal(other.parts.flood, [], 'nobody else is left: broadcast is dropped');
  const portless = parse('{"flood": ["192.0.2.9", {"ip": "::1"}], "2:8:20:0:0:1": {"ip": "192.0.2.1"}}', {
    kinds: IP,
  });
  assert.equal(portless.parts.flood, [{ ip: '192.0.2.9' }, { ip: '::1' }]);
});

plugin('the port may be left out where the encapsulation takes none, and is not answered there', () => {
  const text = `{"${FIRST}": {"ip": "192.0.2.1", "port": 4789}, "${SECOND}": {"ip": "192.0.2.1"}}`;
  const mappings = parse(text, { kinds: IP });
  assert.equal(mappings.destination(FIRST), { ip: '192.0.2.1' });
  assert.equal(mappings.destination(SECOND), { ip: '192.0.2.1' });
  assert.is(mappings.parts.vtepCount, 1);
  assert.equal(parse(`{"${FIRST}": {"ip": "192.0.2.1", "port": 7}}`, { kinds: 4 }).destination(FIRST), {
    port: 7,
  });
});

plugin('keys that are there twice: the last counts; an inner address of two mappings: the first', () => {
  const mappings = parse(`{
    "2:8:20:0:0:1": {"ip": "192.0.2.1", "port": 1, "arp": "10.0.0.1", "ndp": "fd00::1"},
    "2:8:20:0:0:2": {"ip": "192.0.2.2", "ip": "192.0.2.3", "port": 1, "port": 2,
                     "arp": "10.0.0.9", "arp": "10.0.0.1", "ndp": "fd00::9", "ndp": "fd00::1"},
    "2:8:20:0:0:3": {"ip": "192.0.2.4", "port": 1, "arp": "10.0.0.1", "ndp": "fd00::1", "dhcp-proxy": "1:2:3:4:5:6"},
    "02:08:20:0:0:01": {"ip": "192.0.2.5", "port": 1, "arp": "10.0.0.8"},
    "flood": true, "flood": ["192.0.2.4"]
  }`);
  assert.is(mappings.count, 3);
  assert.equal(mappings.destination(FIRST), { ip: '192.0.2.5', port: 1 });
  assert.equal(mappings.destination(SECOND), { ip: '192.0.2.3', port: 2 });
  assert.is(mappings.owner(4, '10.0.0.1'), SECOND, 'the first of those that count');
  assert.is(mappings.owner(6, 'fd00::1'), SECOND);
  assert.is(mappings.owner(4, '10.0.0.8'), FIRST);
  assert.is(mappings.owner(4, '10.0.0.9'), undefined);
  assert.is(mappings.owner(6, 'fd00::9'), undefined);
  assert.is(mappings.dhcpServer(THIRD), '01:02:03:04:05:06');
  assert.equal(mappings.peers(), ['192.0.2.3', '192.0.2.4', '192.0.2.5'], 'one that is replaced is no peer');
  assert.equal(mappings.parts.flood, [{ ip: '192.0.2.4', port: 1 }]);
});

plugin('escapes in keys and values; numbers as JSON has them', () => {
  const mappings = parse(
    String.raw`{"\u0032:8:20:0:0:1": {"\u0069p": "192\u002e0.2.1", "p\u006frt": 4.789e3, "arp": "10.0\u002E0.1",
      "dhcp\u002dproxy": "2:8:20:0:0:\u0032"}, "fl\u006fod": true}`,
  );
  assert.equal(mappings.destination(FIRST), { ip: '192.0.2.1', port: 4789 });
  assert.is(mappings.owner(4, '10.0.0.1'), FIRST);
  assert.is(mappings.dhcpServer(FIRST), SECOND);
  assert.is(mappings.parts.flood.length, 1);
});

plugin('options: each mapping has its own, beside the same endpoint, and is flooded to once', () => {
  const there = { ip: '192.0.2.2', port: 65535 };
  const [one, other] = ['0102:3:0a0b0c0d', '0103:84:'];
  const mappings = parse(
    JSON.stringify({
      flood: true,
      [FIRST]: { ...there, options: one },
      [SECOND]: { options: other, ...there },
      [THIRD]: there,
      '2:0:0:0:0:4': { options: one, ...there },
    }).replace('{"options":"0103', '{"options":"1:2:","options":"0103'),
  );
  assert.equal(mappings.destination(FIRST), { ...there, options: one });
  assert.equal(mappings.destination(SECOND), { ...there, options: other }, 'the last one counts');
  assert.equal(mappings.destination(THIRD), there);
  assert.equal(mappings.destination('02:00:00:00:00:04'), { ...there, options: one });
  const { parts } = mappings;
  assert.equal([parts.vtepCount, parts.flood, mappings.peers()], [3, [there], [there.ip]]);
});

plugin('options: what differs is what the texts say, however a file numbers them', () => {
  const there = { ip: '192.0.2.2', port: 1 };
  const fileOf = (...options: (string | undefined)[]) =>
    parse(
      JSON.stringify(
        Object.fromEntries(options.map((each, mac) => [macText(mac), { ...there, options: each }])),
      ),
    );
  const changed = (before: Mappings, after: Mappings) => finish(compare(before, after)).changed;
  const before = fileOf('1:1:', '2:2:', undefined);
  assert.equal(changed(before, fileOf('1:1:', '2:2:', undefined)), []);
  assert.equal(changed(before, fileOf('2:2:', '1:1:', undefined)), [macText(0), macText(1)]);
  assert.equal(changed(before, fileOf('3:3:', '2:2:', undefined)), [macText(0)]);
  assert.equal(changed(before, fileOf('1:1:', undefined, '1:1:')), [macText(1), macText(2)]);
});

plugin('options: as many different ones as there may be, and one more', async () => {
  const fileOf = (count: number) => {
    const lines = Array.from({ length: count }, (_, each) => {
      const hex = each.toString(16);
      return `"2:0:0:0:${each >> 8 ? hex.slice(0, -2) : 0}:${hex.slice(-2)}": {"ip": "::1", "port": 1, "options": "${hex}:1:"}`;
    });
    return `{${lines.join(',\n')}}`;
  };
  const most = parse(fileOf(OPTION_TEXTS_MAX));
  const last = { ip: '::1', port: 1, options: `${(OPTION_TEXTS_MAX - 1).toString(16)}:1:` };
  assert.equal(most.destination('02:00:00:00:ff:fe'), last);
  await assertRefused(
    () => parse(fileOf(OPTION_TEXTS_MAX + 1)),
    'EINVAL',
    'bad_mapping',
    /:65536:\d+: the mappings have more than 65535 different "options"/,
  );
});

plugin('options that change: their targets are asked about again; bad ones change nothing', () =>
  withRig(async (rig) => {
    const there = { ip: '192.0.2.2', port: 1 };
    const ask = () => rig.instance.lookup!(request({ destination: FIRST }));
    rig.write({ [FIRST]: { ...there, options: '1:1:' }, [SECOND]: there });
    await rig.start();
    assert.equal(ask(), { ...there, options: '1:1:' });
    rig.replace({ [FIRST]: { ...there, options: '2:2:' }, [SECOND]: there });
    await rig.seen(`invalidate ${FIRST}`);
    assert.equal([rig.calls, ask()], [[`invalidate ${FIRST}`], { ...there, options: '2:2:' }]);
    rig.replace({ [FIRST]: { ...there, options: '2:2' } });
    await rig.seen(/^degrade .*overlay\.json:1:\d+: the value of "options".*from before stay in use$/);
    assert.equal(ask(), { ...there, options: '2:2:' });
  }),
);

plugin('no mappings, and reserved keys of every kind', () => {
  assert.is(parse(' {} \n').count, 0);
  const reserved: string[] = [];
  const text = `{"${FIRST}":\n {"vlan": [1, {"a": null}], "ip": "::1", "port": 1, "vid": "\\u0041", "": {"ip": 1}}}`;
  parse(text, { onReserved: (key, { line, column }) => reserved.push(`${key} ${line}:${column}`) });
  assert.equal(reserved, ['vlan 2:3', 'vid 2:53', ' 2:70']);
});

const entry = (value: string): string => `{\n  "2:8:20:0:0:1": ${value}\n}`;
const refusals: [text: string, refusal: string, code?: string][] = [
  ['', '1:1: the file is empty; without mappings it holds {}'],
  ['\n', '2:1: the file ends where a value is expected', 'bad_json'],
  ['[]', '1:1: the file must hold one JSON object, not a list'],
  ['\n "x"', '2:2: the file must hold one JSON object, not text'],
  ['{}\n{}', `2:1: only whitespace may follow the value that ends before '{'`, 'bad_json'],
  [entry('{"ip": "::1", "port": 1'), `3:2: the file ends where ',' or '}' is expected`, 'bad_json'],
  ['{\n  "red": {}}', '2:3: this key is not a MAC address such as 2:8:20:1:2:3'],
  ['{"fabrics": {}}', '1:2: this key is not a MAC address such as 2:8:20:1:2:3'],
  ['{"2-8-20-0-0-1": {}}', '1:2: this key is not a MAC address such as 2:8:20:1:2:3'],
  [`{"${'é'.repeat(100)}": {}}`, `1:2: this key is not a MAC address such as 2:8:20:1:2:3`],
  [entry('4'), '2:19: the value of 02:08:20:00:00:01 must be an object such as {"ip": "192.0.2.1"}'],
  [entry('{}'), '2:3: the mapping of 02:08:20:00:00:01 has no "ip"'],
  [entry('{"port": 1}'), '2:3: the mapping of 02:08:20:00:00:01 has no "ip"'],
  [
    entry('{"ip": "::1"}'),
    '2:3: the mapping of 02:08:20:00:00:01 has no "port", which the encapsulation needs',
  ],
  [
    entry('{\n    "ip": 4}'),
    '3:11: the value of "ip" must be text, an IP address of the underlay, not a number',
  ],
  [entry('{"ip": "vtep.example"}'), '2:26: the value of "ip" must be an IPv4 or IPv6 address, not this text'],
  [
    entry('{"ip": "2002::1"}'),
    '2:26: the value of "ip" is not usable: 2002::1 cannot be a destination: it is a 6to4 address (2002::/16)',
  ],
  [
    entry('{"ip": "0.0.0.0"}'),
    '2:26: the value of "ip" is not usable: 0.0.0.0 cannot be a destination: it is unspecified',
  ],
  [
    entry('{"ip": "::"}'),
    '2:26: the value of "ip" is not usable: :: cannot be a destination: it is unspecified',
  ],
  [entry('{"ip": "::1", "port": 0}'), '2:41: the value of "port" must be 1 to 65535'],
  [entry('{"ip": "::1", "port": 65536}'), '2:41: the value of "port" must be 1 to 65535'],
  [entry('{"ip": "::1", "port": 1.5}'), '2:41: the value of "port" must be 1 to 65535'],
  [entry('{"ip": "::1", "port": -1e999}'), '2:41: the value of "port" must be 1 to 65535'],
  [
    entry('{"ip": "::1", "port": "4789"}'),
    '2:41: the value of "port" must be a number, 1 to 65535, not text',
  ],
  [entry('{"ip": "::1", "port": null}'), '2:41: the value of "port" must be a number, 1 to 65535, not null'],
  [
    entry('{"arp": ["10.0.0.1"]}'),
    '2:27: the value of "arp" must be text, an IPv4 address of the overlay, not a list',
  ],
  [
    entry('{"arp": "fd00::1"}'),
    '2:27: the value of "arp" must be an IPv4 address such as 10.0.0.1, not this text',
  ],
  [
    entry('{"ndp": "10.0.0.1"}'),
    '2:27: the value of "ndp" must be an IPv6 address such as fd00::1, not this text',
  ],
  [entry('{"ndp": true}'), '2:27: the value of "ndp" must be text, an IPv6 address of the overlay, not true'],
  [
    entry('{"dhcp-proxy": {}}'),
    '2:34: the value of "dhcp-proxy" must be text, the MAC address of a DHCP server, not an object',
  ],
  [
    entry('{"dhcp-proxy": "10.0.0.1"}'),
    '2:34: the value of "dhcp-proxy" must be a MAC address such as 2:8:20:1:2:3, not this text',
  ],
  [
    entry('{"ip": "::1", "port": 1, "options": 3}'),
    '2:55: the value of "options" must be text, such as 0102:3:0a0b0c0d, not a number',
  ],
  [
    entry('{"options": "1:2:+1:2:0a"}'),
    '2:31: the value of "options" is not usable: the data of option 2 has 1 bytes, and it must be whole words of 4',
  ],
  [
    '{"flood": [{"ip": "::1", "port": 1,\n "options": "1:2:"}]}',
    '2:2: a VTEP of the flood list has no "options": what is flooded has those of a property, the same for all',
  ],
  ['{"flood": null}', '1:11: the value of "flood" must be true, false or a list of VTEPs, not null'],
  [
    '{"flood": [4789]}',
    '1:12: the value of "flood" must be text, an IP address of the underlay, not a number',
  ],
  ['{"flood": ["x"]}', '1:12: the value of "flood" must be an IPv4 or IPv6 address, not this text'],
  ['{"flood": [{}]}', '1:12: this VTEP of the flood list has no "ip"'],
  ['{"flood": [{"ip": "::1", "port": 0}]}', '1:34: the value of "port" must be 1 to 65535'],
  [
    '{"flood": [\n"192.0.2.9"]}',
    '2:1: no mapping has the VTEP 192.0.2.9, so its port is not known; write {"ip": "192.0.2.9", "port": 4789}',
  ],
  [
    '{"flood": [{"ip": "192.0.2.9"}]}',
    '1:12: no mapping has the VTEP 192.0.2.9, so its port is not known; write {"ip": "192.0.2.9", "port": 4789}',
  ],
];

plugin('what is refused, and at which line and column', async () => {
  for (const [text, refusal, code = 'bad_mapping'] of refusals) {
    const error = await assertRefused(() => parse(text), 'EINVAL', code);
    assert.is(error.message, `${NAME}:${refusal}`);
  }
});

plugin('bounds: VTEPs of a flood, mappings, the length of one mapping', async () => {
  const vteps = (count: number): string[] =>
    Array.from({ length: count }, (_, index) => `192.0.${index >> 8}.${index & 255}`);
  const ofAll = (count: number): string => {
    const mappings = vteps(count).map((ip, index) => [
      `2:0:0:0:${(index >> 8).toString(16)}:${(index & 255).toString(16)}`,
      { ip, port: 1 },
    ]);
    return JSON.stringify({ flood: true, ...Object.fromEntries(mappings) });
  };
  const ofList = (count: number): string =>
    JSON.stringify({ flood: vteps(count).map((ip) => ({ ip, port: 1 })) });
  for (const text of [ofAll(1024), ofList(1024)]) assert.is(parse(text).parts.flood.length, 1024);
  await assertRefused(
    () => parse(ofAll(1025)),
    'EINVAL',
    'bad_mapping',
    /json:1:10: "flood" comes to more than 1024/,
  );
  await assertRefused(
    () => parse(ofList(1025)),
    'EINVAL',
    'bad_mapping',
    /:1:\d+: a flood list has at most 1024/,
  );
  const long = `{"${FIRST}": {"ip": "::1", "port": 1},\n"${SECOND}": {"notes": "${'x'.repeat(1 << 20)}"}}`;
  await assertRefused(() => parse(long), 'EINVAL', 'bad_json', /json:2:1: what begins here goes on for more/);
});

/** The mappings of a document as an object has them: slow, and plain to see. */
interface Model {
  readonly macs: Map<string, { ip: string; arp: string | undefined; dhcp: string | undefined }>;
  owner(ip: string): string | undefined;
}

type ModelEntry = [mac: number, ip: number, arp: number | undefined, dhcp: number | undefined];

function modelOf(entries: readonly ModelEntry[]): Model {
  const macs: Model['macs'] = new Map();
  for (const [mac, ip, arp, dhcp] of entries) {
    macs.delete(macText(mac));
    macs.set(macText(mac), {
      ip: `192.0.2.${ip}`,
      arp: arp === undefined ? undefined : `10.0.0.${arp}`,
      dhcp: dhcp === undefined ? undefined : macText(dhcp),
    });
  }
  return { macs, owner: (ip) => [...macs].find(([, { arp }]) => arp === ip)?.[0] };
}

const macText = (mac: number): string => `02:00:00:00:00:${mac.toString(16).padStart(2, '0')}`;

function textOf(entries: readonly ModelEntry[]): string {
  const lines = entries.map(([mac, ip, arp, dhcp]) => {
    const value = {
      ip: `192.0.2.${ip}`,
      port: 4789,
      ...(arp === undefined ? {} : { arp: `10.0.0.${arp}` }),
      ...(dhcp === undefined ? {} : { 'dhcp-proxy': macText(dhcp) }),
    };
    return `"2:0:0:0:0:${mac.toString(16)}": ${JSON.stringify(value)}`;
  });
  return `{${lines.join(',\n')}}`;
}

const small = fc.nat(12);
const modelEntries = fc.array(
  fc.tuple(
    small,
    fc.integer({ min: 1, max: 5 }),
    fc.option(small, { nil: undefined }),
    fc.option(small, { nil: undefined }),
  ),
  { maxLength: 24 },
) as fc.Arbitrary<ModelEntry[]>;

plugin('random files answer as a plain model does', () => {
  fc.assert(
    fc.property(modelEntries, (entries) => {
      const model = modelOf(entries);
      const mappings = parse(textOf(entries));
      assert.is(mappings.count, model.macs.size);
      for (let number = 0; number <= 13; number++) {
        const known = model.macs.get(macText(number));
        assert.equal(mappings.destination(macText(number)), known && { ip: known.ip, port: 4789 });
        assert.is(mappings.dhcpServer(macText(number)), known?.dhcp);
        assert.is(mappings.owner(4, `10.0.0.${number}`), model.owner(`10.0.0.${number}`));
      }
      assert.equal([...mappings.peers()].sort(), peersOf(model));
    }),
    { numRuns: 2000 },
  );
});

function peersOf(model: Model): string[] {
  return [...new Set([...model.macs.values()].map(({ ip }) => ip))].sort();
}

plugin('a difference is exactly what the models differ in', () => {
  fc.assert(
    fc.property(modelEntries, modelEntries, (entriesBefore, entriesNow) => {
      const [before, now] = [modelOf(entriesBefore), modelOf(entriesNow)];
      const difference = finish(compare(parse(textOf(entriesBefore)), parse(textOf(entriesNow))));
      const macs = [...new Set([...before.macs.keys(), ...now.macs.keys()])];
      const changed = macs.filter((mac) => before.macs.get(mac)?.ip !== now.macs.get(mac)?.ip);
      assert.equal([...(difference.changed ?? [])].sort(), changed.sort());
      const ips = Array.from({ length: 13 }, (_, number) => `10.0.0.${number}`);
      const moved = ips.flatMap((ip) => {
        const [was, is] = [before.owner(ip), now.owner(ip)];
        return was !== undefined && is !== undefined && was !== is ? [`${ip} ${is}`] : [];
      });
      assert.equal(difference.moved.map(({ ip, mac }) => `${ip} ${mac}`).sort(), moved.sort());
      assert.is(difference.arePeersOther, peersOf(before).join() !== peersOf(now).join());
    }),
    { numRuns: 2000 },
  );
});

plugin('a difference: another flood list means everything; many changes do, too', () => {
  const differ = (before: unknown, now: unknown): Difference =>
    finish(compare(parse(JSON.stringify(before)), parse(JSON.stringify(now))));
  assert.equal(differ({ ...manual, flood: true }, { flood: true, ...manual }).changed, []);
  const other = differ(manual, { ...manual, flood: ['192.0.2.2'] });
  assert.is(other.changed, undefined);
  assert.is(other.arePeersOther, false);
  assert.is(differ({ ...manual, flood: true }, manual).changed, undefined);
  assert.is(
    differ({ ...manual, flood: ['192.0.2.2'] }, { ...manual, flood: ['2001:db8::1'] }).changed,
    undefined,
  );
  const peer = differ(manual, { ...manual, flood: [{ ip: '192.0.2.77', port: 1 }] });
  assert.is(peer.arePeersOther, true);
  const port = differ(manual, { ...manual, [SECOND]: { ...manual[SECOND], port: 7 } });
  assert.equal(port.changed, [SECOND], 'the port counts');
  assert.is(port.arePeersOther, false, 'for peers only the address does');

  const many = (count: number, ip: string, shift: number): unknown =>
    Object.fromEntries(
      Array.from({ length: count }, (_, index) => {
        const [high, low] = [(index >> 8).toString(16), (index & 255).toString(16)];
        const owner = (index + shift) % count;
        return [`2:0:0:0:${high}:${low}`, { ip, port: 1, arp: `10.1.${owner >> 8}.${owner & 255}` }];
      }),
    );
  const most = CHANGES_MAX;
  assert.is(differ(many(most, '192.0.2.1', 0), many(most, '192.0.2.2', 0)).changed?.length, most);
  assert.is(differ(many(most + 1, '192.0.2.1', 0), many(most + 1, '192.0.2.2', 0)).changed, undefined);
  const exactly = differ(many(MOVES_MAX, '192.0.2.1', 0), many(MOVES_MAX, '192.0.2.1', 1));
  assert.equal([exactly.moved.length, exactly.isMovedCut], [MOVES_MAX, false]);
  const more = differ(many(MOVES_MAX + 1, '192.0.2.1', 0), many(MOVES_MAX + 1, '192.0.2.1', 1));
  assert.equal([more.moved.length, more.isMovedCut], [MOVES_MAX, true]);
});

plugin('hostile bytes: mappings or EINVAL, never anything else', () => {
  const good = Buffer.from(
    JSON.stringify({ ...manual, flood: ['192.0.2.2', { ip: '::1', port: 2 }] }, null, 1),
  );
  const edits = fc.array(
    fc.tuple(fc.nat(), fc.oneof(fc.nat(255), fc.constantFrom(...Buffer.from('{}[]",:\\0')))),
    {
      minLength: 1,
      maxLength: 4,
    },
  );
  let refused = 0;
  const attempt = (bytes: Buffer, kinds: number): void => {
    try {
      parse(bytes, { kinds, localIp: '192.0.2.2' });
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      refused++;
      assert.is(error.errno, 'EINVAL');
      assert.match(error.message, /^\/etc\/overlay\.json:\d+:\d+: \S+ .+/);
      assert.ok(error.message.length < 400, error.message);
    }
  };
  fc.assert(
    fc.property(edits, fc.nat(good.length), fc.constantFrom(IP, IP_PORT), (list, cut, kinds) => {
      const bytes = Buffer.from(good);
      for (const [at, byte] of list) bytes[at % bytes.length] = byte;
      attempt(bytes, kinds);
      attempt(bytes.subarray(0, cut), kinds);
    }),
    { numRuns: 10_000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => attempt(Buffer.from(bytes), IP_PORT)));
  assert.ok(refused > 10_000);
});

plugin('properties, destination kinds', async () => {
  assert.equal(files.properties(IP_PORT), ['files/config', 'files/local_ip']);
  for (const kinds of [0, 1, 3, 5, 7]) {
    await assertRefused(() => files.create(kinds), 'ENOTSUP', 'destination_not_supported', /files supplies/);
  }
  for (const kinds of [2, 4, 6]) files.create(kinds);
  const { properties } = files.create(IP_PORT);
  assert.equal(properties.missing(), ['files/config']);
  await assertRefused(
    () => properties.set('files/config', 'overlay.json'),
    'EINVAL',
    'bad_property_value',
    /absolute path/,
  );
  await assertRefused(
    () => properties.set('files/local_ip', '224.0.0.1'),
    'EINVAL',
    'bad_property_value',
    /multicast/,
  );
  properties.set('files/local_ip', '2001:DB8::1');
  assert.is(properties.get('files/local_ip'), '2001:db8::1');
});

plugin('a start that fails says why, and can be tried again', async () => {
  await withRig(async (rig) => {
    const unset = files.create(IP_PORT);
    await assertRefused(
      () => unset.start(rig.services),
      'EAGAIN',
      'property_missing',
      /^not set: files\/config$/,
    );
    const gone = await assertRefused(
      rig.start(),
      'ENOENT',
      'file_not_readable',
      /create it, or set files\/config/,
    );
    assert.ok(gone.message.startsWith(`${rig.path} cannot be read: no such file or directory (ENOENT)`));
    rig.write('{"x": {}}');
    const bad = await assertRefused(rig.start(), 'EINVAL', 'bad_mapping');
    assert.ok(bad.message.startsWith(`${rig.path}:1:2: this key is not a MAC address`), bad.message);
    rig.write('{"x');
    const syntax = await assertRefused(rig.start(), 'EINVAL', 'bad_json');
    assert.is(syntax.message, `${rig.path}:1:2: this string has no closing quote`);
    rig.instance.properties.set('files/config', rig.folder);
    await assertRefused(rig.start(), 'EINVAL', 'file_not_readable', /is not a regular file/);
    rig.instance.properties.set('files/config', '/dev/zero');
    await assertRefused(rig.start(), 'EINVAL', 'file_not_readable', /is not a regular file/);
    rig.instance.properties.set('files/config', `${rig.path}/below`);
    await assertRefused(rig.start(), 'ENOTDIR', 'file_not_readable', /set files\/config/);
    rig.instance.properties.set('files/config', rig.path);
    rig.write(manual);
    await rig.start();
    assert.is(rig.ip(SECOND), '192.0.2.2');
    assert.equal(rig.calls, [], 'a device that does not start is not degraded by it');
    await rig.instance.stop();
    rig.write({});
    await rig.start();
    assert.is(rig.ip(SECOND), undefined, 'a new start reads the file anew');
  });
});

plugin('a reserved key is reported once, not at every mapping and every load', async () => {
  await withRig(async (rig) => {
    const content = {
      [FIRST]: { ip: '192.0.2.1', port: 1, vlan: 1 },
      [SECOND]: { vlan: 2, note: '', ip: '::1', port: 1 },
    };
    rig.write(content);
    await rig.start();
    rig.replace({ [THIRD]: { ip: '192.0.2.3', port: 1, vlan: 3, more: 4 }, ...content });
    await rig.seen(`invalidate ${THIRD}`);
    const warnings = rig.logs.filter((line) => line.startsWith('warn'));
    assert.equal(
      warnings.map((line) => line.replace(rig.path, 'f')),
      [
        'warn f:1:49: the key "vlan" is reserved and means nothing yet',
        'warn f:1:89: the key "note" is reserved and means nothing yet',
        'warn f:1:58: the key "more" is reserved and means nothing yet',
      ],
    );
  });
});

plugin('good, broken, good again: the old mappings stay, the device is degraded and recovers', async () => {
  await withRig(async (rig) => {
    rig.write(manual);
    await rig.start();
    rig.write(`{\n  "${FIRST}": {"ip": "192.0.2.9", "port": 70000}\n}`);
    const fault = `${rig.path}:2:52: the value of "port" must be 1 to 65535`;
    await rig.seen(`degrade ${fault}; the mappings from before stay in use`);
    assert.is(rig.ip(FIRST), '2001:db8::1');
    assert.is(rig.ip(THIRD), '192.0.2.2');
    assert.ok(rig.logs.includes(`error ${fault}; the mappings from before stay in use`));
    rig.write(`{\n  "${FIRST}": {"ip": "192.0.2.9",\n`);
    await rig.seen(/degrade .*:3:1: the file ends/);
    assert.equal(rig.calls.filter((call) => call === 'restore').length, 0);
    const { [SECOND]: second } = manual;
    rig.write({
      [FIRST]: { ip: '192.0.2.9', port: 4789, arp: '10.0.0.2' },
      [SECOND]: { ...second, arp: '10.0.0.7' },
    });
    await rig.seen(`arp 10.0.0.2 ${FIRST} 0`);
    assert.is(rig.ip(FIRST), '192.0.2.9');
    assert.is(rig.ip(SECOND), '192.0.2.2');
    assert.is(rig.ip(THIRD), undefined);
    assert.equal(rig.calls.slice(2), [
      'restore',
      'peers 192.0.2.2 192.0.2.9',
      `invalidate ${FIRST}`,
      `invalidate ${THIRD}`,
      `arp 10.0.0.2 ${FIRST} 0`,
    ]);
  });
});

plugin('a change tells exactly what changed: targets, floods', async () => {
  await withRig(async (rig) => {
    rig.write(manual);
    await rig.start();
    const fourth = { '2:8:20:0:0:4': { ip: '192.0.2.2', port: 4789 } };
    rig.replace({ ...manual, ...fourth });
    await rig.seen('invalidate 02:08:20:00:00:04');
    assert.equal(rig.calls.splice(0), ['invalidate 02:08:20:00:00:04']);
    rig.replace({ ...manual, ...fourth, flood: true });
    await rig.seen('invalidateAll');
    assert.equal(rig.calls.splice(0), ['invalidateAll']);
    rig.replace({ ...manual, flood: true });
    await rig.seen('invalidate 02:08:20:00:00:04');
    assert.equal(rig.calls.splice(0), ['invalidate 02:08:20:00:00:04'], 'the flood list is the same');
    rig.replace({ ...manual, flood: ['192.0.2.2', { ip: '192.0.2.200', port: 1 }] });
    await rig.seen('invalidateAll');
    assert.equal(rig.calls.splice(0), ['peers 192.0.2.2 192.0.2.200 2001:db8::1', 'invalidateAll']);
  });
});

plugin('a change is loaded once, not again and again', async () => {
  await withRig(async (rig) => {
    rig.write(manual);
    await rig.start();
    rig.logs.length = 0;
    rig.replace({});
    await rig.seen(`invalidate ${THIRD}`);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    // The watch and the look at the file each second may both have seen it.
    assert.ok(rig.logs.length <= 2, rig.logs.join());
  });
});

plugin('every way in which a file changes', async () => {
  await withRig(async (rig) => {
    const at = (ip: string): unknown => ({ [FIRST]: { ip, port: 4789 } });
    const becomes = (ip: string): Promise<void> => until(ip, WAIT_MS, () => rig.ip(FIRST) === ip);
    rig.write(at('192.0.2.1'));
    await rig.start();
    rig.write(at('192.0.2.2'));
    await becomes('192.0.2.2');
    rig.replace(at('192.0.2.3'));
    await becomes('192.0.2.3');
    rig.replace(at('192.0.2.4'));
    await becomes('192.0.2.4');

    rmSync(rig.path);
    await rig.seen(/^degrade \S+ cannot be read: no such file or directory \(ENOENT\)/);
    assert.is(rig.ip(FIRST), '192.0.2.4', 'deleted: the mappings stay');
    rig.write(at('192.0.2.4'));
    await rig.seen('restore');
    rig.calls.length = 0;

    truncateSync(rig.path, 0);
    await rig.seen(/^degrade \S+:1:1: the file is empty/);
    appendFileSync(rig.path, `{"${FIRST}": `);
    await rig.seen(/^degrade \S+:1:23: the file ends where a value is expected/);
    appendFileSync(rig.path, `{"ip": "192.0.2.5", "port": 4789}}`);
    await becomes('192.0.2.5');
    await rig.seen('restore');
    rig.calls.length = 0;

    // The folder itself goes, and another one comes.
    renameSync(rig.folder, `${rig.folder}-old`);
    await rig.seen(/^degrade \S+ cannot be read: no such file/);
    mkdirSync(rig.folder);
    rig.write(at('192.0.2.6'));
    await becomes('192.0.2.6');
    rig.write(at('192.0.2.7'));
    await becomes('192.0.2.7');
    rmSync(`${rig.folder}-old`, { recursive: true });

    // A folder that is a link, as Kubernetes has them, to another one.
    const elsewhere = `${rig.folder}-elsewhere`;
    rig.write(at('192.0.2.8'));
    await becomes('192.0.2.8');
    renameSync(rig.folder, elsewhere);
    symlinkSync(elsewhere, rig.folder);
    rig.write(at('192.0.2.9'), join(elsewhere, basename(rig.path)));
    await becomes('192.0.2.9');
    rmSync(rig.folder);
    renameSync(elsewhere, rig.folder);
  });
});

plugin('after stop nothing is told any more', async () => {
  await withRig(async (rig) => {
    rig.write(manual);
    await rig.start();
    const other = files.create(IP_PORT);
    const seen: string[] = [];
    other.properties.set('files/config', rig.path);
    await other.start({ ...rig.services, degrade: (text) => seen.push(text) });
    await rig.instance.stop();
    await rig.instance.stop();
    rig.write('{');
    await until('the other one sees it', WAIT_MS, () => seen.length > 0);
    await other.stop();
    assert.equal(rig.calls, []);
  });
});

plugin('a stop ends a load that runs', async () => {
  await withRig(async (rig) => {
    const mappings = Array.from({ length: 100_000 }, (_, index) => {
      const octets = [index >> 16, (index >> 8) & 255, index & 255].map((octet) => octet.toString(16));
      return `"2:0:0:${octets.join(':')}": {"ip": "192.0.2.1", "port": 1}`;
    });
    rig.write(`{${mappings.join(',\n')}}`);
    const starting = rig.start();
    let turns = 0;
    const refusal = assertRefused(starting, 'ECANCELED', 'stopped', /files was stopped/);
    while (turns++ < 5) await new Promise((resolve) => setImmediate(resolve));
    await rig.instance.stop();
    await refusal;
    rig.write(manual);
    await rig.start();
    assert.is(rig.ip(SECOND), '192.0.2.2');
    // And one that a change has begun.
    rig.write(`{${mappings.join(',\n')}}`);
    await until('the change is taken up', WAIT_MS, () => rig.logs.length > 0);
    await rig.instance.stop();
    assert.not.ok(rig.calls.some((call) => call.startsWith('degrade')));
  });
});

plugin.run();
