/**
 * A program that makes and deletes overlays as the daemon does, to be killed by strace: `link-child.js <directory> <task>`, in the
 * network namespace of its links. It first brings back what is recorded. It prints `begin` before the task, and afterwards
 * on another line what there is, as JSON. Links stay as a killed daemon leaves them.
 */
import { writeSync } from 'node:fs';
import { memoryBytesNeeded } from '../../src/datapath/memory.js';
import { ARENAS_SPARE } from '../../src/limits.js';
import { silent } from '../../src/log.js';
import { TapSource } from '../../src/overlay/tap-source.js';
import { Overlay } from '../../src/overlay.js';
import { StateStore } from '../../src/state/store.js';
import { request } from './memory-overlay.js';

const [, , directory = '', task = '', zone = ''] = process.argv;
const store = StateStore.open(directory);
const ports = new TapSource();
const memoryBytes = memoryBytesNeeded(1 + ARENAS_SPARE);
const overlay = await Overlay.start({
  ports,
  log: silent,
  workers: 1,
  memoryBytes,
  cpus: [],
  bank: 1,
  store,
});
const { devices, problems } = store.load();
const failures = await overlay.restore(devices);
overlay.findOrphans([]);
const create = () => overlay.createOverlay(request('ov0', 7, 4789));
const force = { force: true };
const { fma } = overlay;

const tasks: Readonly<Record<string, () => Promise<unknown>>> = {
  /** Everything that writes both a record and a link. */
  life: async () => {
    await create();
    await overlay.delete('ov0', force);
    // A link moves before the device is activated, and then is kept already.
    await overlay.create('ov0', 'vxlan', 'direct', 7);
    await overlay.setprop('ov0', 'netns', zone);
    await overlay.delete('ov0', force);
  },
  create,
  delete: () => overlay.delete('ov0', force),
  tidy: async () => overlay.tidy(force),
  look: async () => {},
  hold: async () => {},
  /** The name can be used, whatever there was. */
  use: async () => {
    if (overlay.names.includes('ov0')) await overlay.delete('ov0', force);
    await create();
    await overlay.delete('ov0', force);
  },
};

writeSync(1, 'begin\n');
const before = overlay.names;
const orphaned = () => fma.list().filter(({ code }) => code === 'link_orphaned');
const faults = orphaned().map(({ text }) => text);
let refused: string | undefined;
try {
  await tasks[task]!();
} catch (error) {
  refused = (error as Error).message;
}
const said = { before, names: overlay.names, failures, problems, faults, left: orphaned().length, refused };
writeSync(1, `${JSON.stringify(said)}\n`);
// With its links open, until it is killed.
if (task === 'hold') setInterval(() => {}, 1000);
else process.exit(0);
