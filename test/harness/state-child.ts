/**
 * A program that uses a store as the daemon does, to be killed or refused by strace:
 * `state-child.js <directory> <save | remove | targets | load>`. It prints `begin` before the system calls that count and
 * what came of it as JSON on a line after them.
 */
import { OverlayError } from '../../src/errors.js';
import type { DeviceRecord, TargetRecord } from '../../src/state/record.js';
import { StateStore } from '../../src/state/store.js';

/** The record of a generation: each differs from the others in several places, so that a mixture shows. */
export function recordOf(generation: number, name = 'ov0'): DeviceRecord {
  return {
    name,
    id: generation,
    encap: 'vxlan',
    search: 'direct',
    vnetid: String(generation),
    properties: { mtu: 1000 + generation, 'direct/dest_ip': `192.0.2.${generation}` },
    isActivated: generation % 2 === 0,
    mac: `02:00:00:00:00:0${generation}`,
    association: null,
    saved: { generation, filler: String(generation).repeat(5000) },
  };
}

/** The targets of a generation: enough for several writes. */
export function targetsOf(generation: number): TargetRecord[] {
  return Array.from({ length: 3000 }, (_, index) => ({
    mac: 0x020000000000 + index,
    route: { ip: `192.0.${generation}.${index % 200}`, port: 4789 },
    source: 'lookup',
  }));
}

const tasks: Record<string, (store: StateStore) => unknown> = {
  save: (store) => store.save(recordOf(2)),
  remove: (store) => store.remove('ov0'),
  targets: (store) => store.saveTargets('ov0', targetsOf(2)),
  load: (store) => store.load(),
};

if (process.argv[1] === import.meta.filename) {
  const [, , directory = '', task = ''] = process.argv;
  let outcome: unknown = 'done';
  try {
    await tasks[task]!(StateStore.open(directory));
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    outcome = error;
  }
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}
