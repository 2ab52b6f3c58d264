import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EncapRegistry } from '../src/encap/registry.js';
import { vxlan } from '../src/encap/vxlan.js';
import { OverlayError } from '../src/errors.js';
import type { OverlayRequest } from '../src/overlay/transaction.js';
import { counting, force, gently, HERE, withMemory, withoutTrace } from './harness/lifecycle.js';
import { freePort, request } from './harness/memory-overlay.js';

const transaction = suite('transaction');

interface Failing {
  readonly what: string;
  readonly change: Partial<OverlayRequest>;
  readonly errno: string;
  readonly code: string;
  readonly details: readonly RegExp[];
}

const failing: readonly Failing[] = [
  { what: 'name', change: { name: 'a/b' }, errno: 'EINVAL', code: 'bad_device_name', details: [] },
  { what: 'encap', change: { encap: 'nope' }, errno: 'ENOENT', code: 'no_such_encap', details: [] },
  { what: 'lookup', change: { search: 'nope' }, errno: 'ENOENT', code: 'no_such_lookup', details: [] },
  { what: 'vnetid', change: { vnetid: 'x' }, errno: 'EINVAL', code: 'bad_property_value', details: [] },
  { what: 'duplicate name', change: { name: 'there' }, errno: 'EEXIST', code: 'device_exists', details: [] },
  { what: 'duplicate vnetid', change: { vnetid: 99 }, errno: 'EEXIST', code: 'vnetid_in_use', details: [] },
  {
    what: 'one bad property',
    change: {
      properties: { mtu: 1, 'vxlan/listen_ip': HERE, 'direct/dest_ip': HERE, 'direct/dest_port': 1 },
    },
    errno: 'EINVAL',
    code: 'bad_property_value',
    details: [/^mtu: mtu cannot be '1': it may be 576-8900,auto$/],
  },
  {
    what: 'every property bad',
    change: {
      properties: {
        'vxlan/listen_ip': '224.0.0.1',
        'vxlan/listen_port': 0,
        'direct/dest_ip': '2002::1',
        'direct/dest_port': '4789x',
        encap: 'vxlan',
        'svp/host': 'a',
      },
    },
    errno: 'EINVAL',
    code: 'bad_property_value',
    details: [
      /^vxlan\/listen_ip: .*multicast/,
      /^vxlan\/listen_port: .*1-65535/,
      /^direct\/dest_ip: .*6to4/,
      /^direct\/dest_port: .*whole decimal/,
      /^encap: encap cannot be set$/,
      /^svp\/host: there is no property 'svp\/host'$/,
    ],
  },
  {
    what: 'no property at all',
    change: { properties: {} },
    errno: 'EINVAL',
    code: 'property_missing',
    details: [
      /^activation: not set: vxlan\/listen_ip$/,
      /^vxlan\/listen_ip: it is required and has no value$/,
      /^direct\/dest_ip: it is required and has no value$/,
      /^direct\/dest_port: it is required and has no value$/,
    ],
  },
  {
    what: 'the lookup’s property missing',
    change: { properties: { 'vxlan/listen_ip': HERE, 'direct/dest_ip': HERE } },
    errno: 'EAGAIN',
    code: 'property_missing',
    details: [
      /^activation: not set: direct\/dest_port$/,
      /^direct\/dest_port: it is required and has no value$/,
    ],
  },
  {
    what: 'one bad, one missing',
    change: { properties: { 'vxlan/listen_ip': 'x', 'direct/dest_ip': HERE } },
    errno: 'EINVAL',
    code: 'bad_property_value',
    details: [/^vxlan\/listen_ip: /, /^direct\/dest_port: it is required and has no value$/],
  },
  {
    what: 'a vnetid in the properties that is taken',
    change: { properties: { vnetid: 99 } },
    errno: 'EEXIST',
    code: 'vnetid_in_use',
    details: [/^vnetid: vnetid 99 is that of overlay 'there'$/, /listen_ip/, /dest_ip/, /dest_port/],
  },
  {
    what: 'names from Object.prototype',
    change: { properties: { constructor: 'x', toString: 'y' } },
    errno: 'ENOENT',
    code: 'no_such_property',
    details: [/^constructor: /, /^toString: /, /listen_ip/, /dest_ip/, /dest_port/],
  },
];

transaction(
  'create-overlay: every failure leaves nothing behind, with a line for each part at fault',
  async () => {
    const plugin = counting();
    const encaps = new EncapRegistry([plugin]);
    await withMemory(
      async (memory) => {
        const { overlay, links } = memory;
        const port = await freePort(HERE);
        await overlay.createOverlay(request('there', 99, port));
        await memory.up('there');
        for (const { what, change, errno, code, details } of failing) {
          const create = () => overlay.createOverlay({ ...request('ov0', 1, port), ...change });
          const error = await withoutTrace(memory, create, errno, code);
          const lines = error.toJSON().details ?? [];
          assert.is(lines.length, details.length, `${what}: ${lines.join('; ')}`);
          for (const [index, line] of lines.entries()) assert.match(line, details[index]!, what);
          if (lines.length > 0) assert.match(error.message, /^overlay 'ov0' was not created: /);
          assert.is(plugin.alive, 1);
          assert.is(overlay.state('there'), 'started', 'what is there goes on');
        }
        links.openFailure = new OverlayError(
          'ENODEV',
          'no_tun_device',
          '/dev/net/tun is missing: load the module',
        );
        await withoutTrace(
          memory,
          () => overlay.createOverlay(request('ov0', 1, port)),
          'ENODEV',
          'no_tun_device',
        );
        await overlay.createOverlay(request('ov0', 1, port));
        await overlay.delete('ov0', gently);
        await overlay.delete('there', force);
        assert.is(plugin.alive, 0);
        encaps.unregister('vxlan');
      },
      { encaps },
    );
  },
);

transaction(
  'create-overlay: a defect in a plugin is thrown on, and leaves nothing behind either',
  async () => {
    const plugin = counting({
      operations: {
        ...vxlan.operations,
        setprop: () => {
          throw new TypeError('a defect');
        },
      },
    });
    await withMemory(
      async (memory) => {
        const before = memory.holdings();
        let thrown: unknown;
        await memory.overlay.createOverlay(request('ov0', 1, 4789)).catch((error: unknown) => {
          thrown = error;
        });
        assert.instance(thrown, TypeError);
        assert.equal(memory.holdings(), before);
        assert.is(plugin.alive, 0);
      },
      { encaps: new EncapRegistry([plugin]) },
    );
  },
);

transaction.run();
