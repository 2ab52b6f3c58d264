/** `src/index.ts` of a new plugin: a whole one, in 20 lines beside the comments. */
export const pluginSource = (name: string): string => `\
/**
 * ${name}: says where frames go. Put your hosts into \`hosts\`, or ask whoever knows them in \`lookup\`, which may be
 * async. What may be answered, and what else a plugin can do, is in overlayd's types: LookupPlugin, LookupInstance.
 */
import { type LookupPlugin, PropertyStore } from 'overlayd';

/** MAC addresses of guests, in lower case with leading zeros, and the tunnel endpoints that they are behind. */
const hosts = new Map([['02:08:20:00:00:01', { ip: '192.0.2.1', port: 4789 }]]);

export const plugin: LookupPlugin = {
  version: 1,
  name: '${name}',
  mode: 'dynamic',
  // Names of the properties that create() declares, such as '${name}/source'.
  properties: () => [],
  // One instance for each device with search=${name}. Called to ask for its declarations too: begin work in start().
  create: () => ({
    properties: new PropertyStore([]),
    start: (services) => services.log('info', \`knows \${hosts.size} hosts\`),
    stop: () => {},
    // 'unknown': the frame is dropped, and the device asks again.
    lookup: ({ destination }) => hosts.get(destination) ?? 'unknown',
  }),
};
`;

/** `test/index.ts`. */
export const testSource = (name: string): string => `\
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LookupRequest } from 'overlayd';
import { plugin } from '../src/index.js';

/** DESTINATION_IP and DESTINATION_PORT: what vxlan and geneve need. */
const IP_AND_PORT = 6;

const lookup = (destination: string) =>
  plugin.create(IP_AND_PORT).lookup?.({ destination } as LookupRequest);

test('${name}: a host that it knows', async () => {
  assert.deepEqual(await lookup('02:08:20:00:00:01'), { ip: '192.0.2.1', port: 4789 });
});

test('${name}: a host that it does not know', async () => {
  assert.equal(await lookup('02:08:20:00:00:02'), 'unknown');
});
`;
