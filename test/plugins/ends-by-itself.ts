/** A program that loads a plugin and uses it, and closes nothing. */
import { join } from 'node:path';
import { silent } from '../../src/log.js';
import { loadRemotePlugin } from '../../src/varpd/remote.js';

const plugin = await loadRemotePlugin(join(import.meta.dirname, 'good.js'), { log: silent });
const instance = plugin.create(6);
instance.properties.set('good/ip', '192.0.2.1');
const ignore = () => {};
await instance.start({
  overlay: 'ov0',
  vnetid: 1n,
  set: ignore,
  invalidate: ignore,
  invalidateAll: ignore,
  gratuitousArp: ignore,
  peersChanged: ignore,
  degrade: ignore,
  restore: ignore,
  log: ignore,
});
const arp = await instance.arp?.({ family: 4, ip: '10.0.0.1', request: {} as never });
if (arp === '02:00:00:00:00:04') console.log('answered');
