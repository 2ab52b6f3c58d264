/** Brings back the devices that were kept; what cannot come back is said, and stays on disk. */
import type { Log } from '../log.js';
import type { Overlay } from '../overlay.js';
import type { StateStore } from '../state/store.js';
import { dropLinks, type LinkFds } from './handover.js';
import type { Health } from './health.js';

export async function restoreDevices(
  overlay: Overlay,
  store: StateStore,
  links: LinkFds,
  { log, health, isEnding }: { readonly log: Log; readonly health: Health; readonly isEnding: () => boolean },
): Promise<void> {
  const { devices, problems } = store.load();
  for (const { file, reason, code } of problems) {
    log.error({ file, code }, reason);
    health.degrade('state_problem', file, reason);
    overlay.events.emit('state-problem', { text: `${code}: see the log` });
  }
  const failures = await overlay.restore(devices, links, isEnding);
  for (const { name, error } of failures) {
    const text =
      `overlay '${name}' did not come back: ${error.message}; it is kept, and tried at the next start; ` +
      'delete-overlay takes it away for good, create-overlay makes it anew';
    log.error({ device: name, errno: error.errno }, text);
    health.degrade('state_problem', name, text);
  }
  overlay.onFound = (name) => health.restore('state_problem', name);
  overlay.findOrphans(problems.filter(({ code }) => code !== 'state_bad').map(({ name }) => name));
  const closed = failures.filter(({ hasTaken }) => hasTaken).map(({ name }) => name);
  dropLinks(links, [...overlay.names, ...closed], log);
  log.info({ devices: overlay.names.length, of: devices.length }, 'restored');
}
