/**
 * Messages to a control server that no good client would send, of every operation and every call, on many
 * connections, while somebody else is served: `control-fuzzer.js <messages> <seed>` prints how often it answered what.
 */
import { connect } from 'node:net';
import * as assert from 'uvu/assert';
import { calls } from '../../src/control/calls.js';
import { operations } from '../../src/control/operations.js';
import { withRig } from './control-rig.js';
import { HandleClient } from './handle-client.js';
import { until } from './hosts.js';
import { descriptors, request } from './memory-overlay.js';
import { Pipeline, type PipelineAnswer } from './pipeline.js';
import { Xorshift } from './xorshift.js';

const CONNECTIONS = 24;
/** Of so many messages one is many at once, for a server that has many devices. */
const MANY_EVERY = 500;
const CROWD = 100;
const DEVICES = 12;
const listRequest = Buffer.from('GET /v1/overlays HTTP/1.1\r\n\r\n');
/** Of so many messages one is not even HTTP, and costs a connection. */
const RAW_EVERY = 400;

class Messages {
  readonly #random: Xorshift;

  constructor(
    seed: number,
    /** Of the open handle. */
    readonly token: string,
  ) {
    this.#random = new Xorshift(seed);
  }

  /** Bytes that may be anything. */
  raw(): Buffer {
    const bytes = Buffer.alloc(1 + this.#random.below(200), 0).map(() => this.#random.below(256));
    const heads = [
      '',
      'GET /v1/overlays HTTP/1.1\r\n',
      'POST /v1/overlays HTTP/1.1\r\nContent-Length: -1\r\n\r\n',
    ];
    return Buffer.concat([Buffer.from(this.#one(heads)), bytes]);
  }

  /** A whole HTTP request. */
  next(): Buffer {
    const kind = this.#random.below(100);
    if (kind < 65) return this.#operation();
    if (kind < 97) return this.#call();
    return this.#stray();
  }

  #operation(): Buffer {
    const { name, method, path, input } = this.#one(operations);
    const where = path.replace(/:\w+/g, (field) => this.#segment(field.slice(1)));
    const query = this.#chance(10) ? `?${this.#one(fields)}=${this.#segment('value')}` : '';
    // One that follows would have the line for itself.
    const isStream = name === 'events' && query.startsWith('?follow');
    const sent = method === 'GET' && !this.#chance(20) ? undefined : this.#body(fieldsOf(input));
    return this.#http(method, isStream ? where : where + query, sent);
  }

  #call(): Buffer {
    const { name, input } = this.#one(calls);
    // A lookup without a time waits for a second.
    const more = name === 'lookup' ? { wait_ms: this.#one([0, -1, 1001, 0.5, '0', null, [], {}]) } : {};
    const sent = name === 'lookup' ? JSON.stringify(more) : this.#body(fieldsOf(input));
    const token = this.#chance(95) ? this.token : this.#one(['', 'x', '0'.repeat(32), '__proto__']);
    return this.#http('POST', `/v1/handle/${name}`, sent, `overlay-handle: ${token}\r\n`);
  }

  #stray(): Buffer {
    const methods = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND'];
    const paths = [
      '/',
      '/v1',
      '/v1/',
      '/v1/handle',
      '/v1/handle/',
      '/v1/handle/nope',
      '/v1/overlays/',
      '/v2',
      '/%',
      '//',
    ];
    const path = this.#chance(50)
      ? this.#one(paths)
      : `/v1/${this.#segment('name')}/${this.#segment('name')}`;
    const types = [
      'application/json',
      'text/plain',
      'application/json; charset=latin1',
      ';;',
      'multipart/form-data',
    ];
    const method = this.#one(methods);
    // A good one would open a handle, and that has the line for itself.
    const sent = method === 'POST' && path === '/v1/handle' ? '{"write":"yes"}' : this.#body(fields);
    return this.#http(method, path, sent, '', this.#one(types));
  }

  #http(
    method: string,
    path: string,
    sent: string | Buffer | undefined,
    more = '',
    type = 'application/json',
  ): Buffer {
    if (sent === undefined) return Buffer.from(`${method} ${path} HTTP/1.1\r\n${more}\r\n`);
    const head = `${method} ${path} HTTP/1.1\r\nContent-Type: ${type}\r\nContent-Length: `;
    return Buffer.concat([
      Buffer.from(`${head}${Buffer.byteLength(sent)}\r\n${more}\r\n`),
      Buffer.from(sent),
    ]);
  }

  /** Of a path, encoded well or not. */
  #segment(field: string): string {
    if (this.#chance(3))
      return this.#one(['%', '%zz', '%ff', '%c0%80', '..', '%00', '%2F', '?', 'x'.repeat(300)]);
    const value = this.#value(field);
    const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
    return encodeURIComponent(text.toWellFormed()) || 'x';
  }

  #body(names: readonly string[]): string | Buffer {
    const kind = this.#random.below(100);
    if (kind < 92) return JSON.stringify(this.#fields(names));
    if (kind < 95) return this.#cut(JSON.stringify(this.#fields(names)));
    if (kind < 96)
      return Buffer.from(Uint8Array.from({ length: this.#random.below(64) }, () => this.#random.below(256)));
    return this.#one(texts);
  }

  /** Each field right, wrong or missing, and now and then one too many. */
  #fields(names: readonly string[]): object {
    const entries = names.flatMap((name) => (this.#chance(15) ? [] : [[name, this.#value(name)] as const]));
    if (this.#chance(8)) entries.push([this.#one(fields), this.#value('value')]);
    return Object.fromEntries(entries);
  }

  /** Takes out, doubles or puts in a few characters. */
  #cut(text: string): string {
    const at = this.#random.below(text.length + 1);
    const end = at + this.#random.below(4);
    return (
      text.slice(0, at) + this.#one(['', '{', '"', ',', '\\', '\u0000', text.slice(at)]) + text.slice(end)
    );
  }

  #value(field: string): unknown {
    return this.#chance(75) ? this.#one(good[field] ?? junk) : this.#one(junk);
  }

  #chance(percent: number): boolean {
    return this.#random.below(100) < percent;
  }

  #one<T>(list: readonly T[]): T {
    return list[this.#random.below(list.length)]!;
  }
}

/** Names of all fields of an input. */
function fieldsOf(input: unknown): string[] {
  const { shape, options = [] } = input as { shape?: object; options?: readonly unknown[] };
  return shape ? Object.keys(shape) : [...new Set(options.flatMap(fieldsOf))];
}

const fields = [
  ...new Set([...operations, ...calls].flatMap(({ input }) => fieldsOf(input))),
  '__proto__',
  'constructor',
  'x',
];

let deep: unknown = 1;
for (let level = 0; level < 100; level++) deep = [deep];
/** Of every type, at the edges of each. */
const junk: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -0,
  -1,
  1.5,
  1e300,
  2 ** 53,
  -(2 ** 63),
  '',
  ' ',
  'NaN',
  '\ud800',
  '\udfff\ud800',
  '\u0000',
  '\u202e',
  '../../etc/passwd',
  '$(reboot)',
  '__proto__',
  'constructor',
  'toString',
  'x'.repeat(255),
  'x'.repeat(257),
  'x'.repeat(5000),
  '😀'.repeat(64),
  [],
  [[]],
  {},
  { toString: 1, valueOf: null },
  deep,
  Array(1001).fill(0),
];
/** What each field may well be. */
const good: Readonly<Record<string, readonly unknown[]>> = {
  name: ['ov0', 'ov1', 'ov2', 'ext', 'nope'],
  overlay: ['ov0', 'ov1', 'ext', 'nope'],
  property: ['mtu', 'vnetid', '0', '1', 'vxlan/listen_ip', 'direct/dest_ip', 'direct/dest_port', 'search'],
  encap: ['vxlan'],
  search: ['direct', 'files', 'learn', 'external'],
  vnetid: [1, 2, 3, 16_777_215, '9007199254740993'],
  properties: [
    {},
    { 'vxlan/listen_ip': '127.0.0.1', 'direct/dest_ip': '127.0.0.2', 'direct/dest_port': 4789 },
    { mtu: 1, 'files/config': '/etc/passwd' },
    { 'vxlan/listen_ip': '::1' },
  ],
  activate: [true, false],
  value: [1400, 9000, '127.0.0.1', '::1', 4789, 'auto'],
  force: ['true', 'false'],
  mac: ['2:8:20:1:2:3', '02:08:20:00:00:01', 'ff:ff:ff:ff:ff:ff', '0:0:0:0:0:0'],
  marker: ['0:0:0:0:0:0', '2:8:20:1:2:3', null],
  count: [0, 1, 500, 501, '1', '500'],
  to: [
    'drop',
    '127.0.0.2:4789',
    { ip: '127.0.0.2', port: 4789 },
    { spread: ['127.0.0.2:4789'] },
    { replicate: [] },
  ],
  destination: ['127.0.0.2:4789', { ip: '127.0.0.2', port: 4789 }],
  mode: ['point', 'dynamic'],
  provides: [['ip', 'port'], ['mac']],
  text: ['it rains'],
  request: ['1', '2', '0'.repeat(16)],
  frame: ['', 'AAAA', Buffer.alloc(60).toString('base64'), '!'],
  as: ['drop', 'unknown', 'proxied'],
  size: [0, 14],
  since: ['0', '1', '99999'],
  follow: ['false'],
};
const texts: readonly string[] = [
  '',
  '{',
  '{}{}',
  'null',
  'NaN',
  'Infinity',
  '[]',
  '"x"',
  '{"name":"ov0","name":"ov1"}',
  '{"__proto__":{"isAdmin":true}}',
  '{"constructor":{"prototype":{"x":1}}}',
  '{"vnetid":1e999}',
  '{"vnetid":-0}',
  '{"vnetid":123456789012345678901234567890}',
  '{"name":"\\ud800"}',
  '[1,]',
  '[',
  '['.repeat(5000) + ']'.repeat(5000),
  `${'{"a":'.repeat(2000)}1${'}'.repeat(2000)}`,
  '\ufeff{}',
  '{"name":"ov0"}\u0000',
  `{"name":"${'x'.repeat(70_000)}"}`,
];

/** Counts an answer, good or an error. Throws for one that is neither. */
function check({ status, text }: PipelineAnswer, codes: Map<string, number>): void {
  const { error } = status === 200 ? {} : (JSON.parse(text) as { error?: { errno: string; code: string } });
  if (status !== 200 && !error) throw new Error(`status ${status}: ${text}`);
  if (status === 500) throw new Error(`status 500: ${text}`);
  const known = error ? `${error.errno} ${error.code}` : 'ok';
  codes.set(known, (codes.get(known) ?? 0) + 1);
}

/** Sends what is not HTTP on a connection of its own, which the server ends, with an error or nothing. */
function converse(path: string, bytes: Buffer, codes: Map<string, number>): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = '';
    socket.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      try {
        const [head = '', body = ''] = text.split('\r\n\r\n');
        if (text !== '') check({ status: Number(head.split(' ')[1]), text: body }, codes);
        resolve();
      } catch (error) {
        reject(error);
      }
    });
    socket.end(bytes);
  });
}

/** Sends many requests at once, and reads no answer: the server ends the connection. */
function crowd(path: string, messages: Messages): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.on('error', () => {});
    socket.on('close', () => resolve());
    socket.pause();
    // Of two good requests the second comes before the first answer has been read.
    const bytes = [listRequest, listRequest, ...Array.from({ length: CROWD }, () => messages.next())];
    socket.write(Buffer.concat(bytes));
    const look = setInterval(() => {
      // A connection that is not read does not tell of its end: a write does.
      if (socket.destroyed) clearInterval(look);
      else socket.write('\r\n');
    }, 10);
  });
}

/** Sends so many messages, and asserts that nothing is left of them. */
async function run(messageCount: number, seed: number): Promise<Map<string, number>> {
  const codes = new Map<string, number>();
  await withRig(async ({ memory, socket, client, defects }) => {
    const { overlay } = memory;
    await client.post('/v1/overlays', { ...request('steady', 7000, 4789), properties: {}, activate: false });
    const { descriptors: open, ...held } = memory.holdings() as { descriptors: number };
    const listen = { 'vxlan/listen_ip': '127.0.0.1' };
    await client.post('/v1/overlays', {
      ...request('ext', 7001, 4789),
      search: 'external',
      properties: listen,
    });
    const handle = await HandleClient.open(socket, true);
    for (let index = 0; index < DEVICES; index++) {
      const idle = { ...request(`many${index}`, 8000 + index, 4789), properties: {}, activate: false };
      await client.post('/v1/overlays', idle);
    }
    let sent = 0;
    let isOver = false;

    /** Somebody else, who wants to know how things are. */
    const other = (async () => {
      let count = 0;
      while (!isOver) {
        const status = await client.get<{ devices: Record<string, { state: string }> }>('/v1/status');
        assert.is(status.devices.steady!.state, 'created');
        count++;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      return count;
    })();

    const pipelines = Array.from({ length: CONNECTIONS }, () => new Pipeline(socket));
    const work = pipelines.map(async (pipeline, line) => {
      const messages = new Messages(seed + line, handle.token);
      while (sent < messageCount && !isOver) {
        const isRaw = ++sent % RAW_EVERY === 0;
        const isMany = !isRaw && sent % MANY_EVERY === 0;
        const bytes = isRaw ? messages.raw() : messages.next();
        try {
          if (isRaw) await converse(socket, bytes, codes);
          else if (isMany) await crowd(socket, messages);
          else check(await pipeline.ask(bytes), codes);
        } catch (error) {
          throw new Error(`${(error as Error).message} for ${bytes.toString('latin1').slice(0, 2000)}`);
        }
      }
    });
    let answers = 0;
    try {
      await Promise.all(work);
    } finally {
      isOver = true;
      answers = await other;
      for (const pipeline of pipelines) pipeline.close();
      handle.cut();
    }
    assert.ok(answers > 10, 'the other client was answered all the time');
    assert.equal(defects, []);
    assert.ok(overlay.names.includes('steady'));
    assert.is(({} as { isAdmin?: boolean }).isAdmin, undefined);

    for (const name of overlay.names) {
      if (name !== 'steady') await client.delete(`/v1/overlays/${name}?force=true`);
    }
    const { descriptors: _, ...left } = memory.holdings() as { descriptors: number };
    assert.equal(left, held);
    await until('every connection is gone', 5000, () => descriptors() <= open);
    assert.is(overlay.varpd.external.hasWriter, false);
    assert.is(overlay.events.listeners, 0);
  });
  return codes;
}

const [, , messageCount = '', seed = ''] = process.argv;
const codes = await run(Number(messageCount), Number(seed));
console.log(JSON.stringify(Object.fromEntries(codes)));
process.exit(0);
