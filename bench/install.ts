/** Peers from Debian. */
import { spawnSync } from 'node:child_process';
import { has } from '../test/harness/needs.js';
import type { Peer } from './peers/index.js';

/** Installs the packages of the peers that lack something; of one that is not to be had it is said. */
export function install(peers: readonly Peer[]): void {
  const lacking = peers.filter(({ needs }) => !needs.every(has));
  if (lacking.length === 0) return;
  if (!has('apt-get')) {
    console.log('peers are installed with apt-get, which is not here');
    return;
  }
  aptGet('update');
  for (const { name, packages } of lacking) {
    // One after the other: a package that there is not leaves out its peer only.
    const status = aptGet('install', '--yes', '--no-install-recommends', ...packages);
    if (status !== 0) console.log(`peer ${name}: apt-get cannot install ${packages.join(', ')}`);
  }
}

function aptGet(...words: string[]): number | null {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  return spawnSync('apt-get', ['-qq', ...words], { stdio: ['ignore', 'ignore', 'inherit'], env }).status;
}
