/**
 * A control server on memory ports that runs as another user: `rights-server.js <socket> <options as JSON>`. Says `ready`,
 * and ends when its input does.
 */
import { ControlServer } from '../../src/control/server.js';
import { silent } from '../../src/log.js';
import { MemoryOverlay, request } from './memory-overlay.js';

export interface RightsServerOptions {
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  readonly access: { group?: string | number; adminGroup?: string | number; socketMode?: number };
}

const [, , socket = '', text = ''] = process.argv;
const { uid, gid, groups, access } = JSON.parse(text) as RightsServerOptions;
process.setgroups!([...groups]);
process.setgid!(gid);
process.setuid!(uid);
const memory = await MemoryOverlay.start();
const { overlay } = memory;
await overlay.createOverlay(request('ov0', 23, 4789));
await memory.up('ov0');
overlay.fma.degrade('ov0', 'plugin', 'it rains on 127.0.0.2');
const server = await ControlServer.start(overlay, socket, silent, access);
console.log('ready');
process.stdin.resume().once('end', async () => {
  await server.close();
  await memory.close();
  process.exit(0);
});
