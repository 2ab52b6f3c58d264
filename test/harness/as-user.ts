/**
 * Runs a program as an ordinary user, with a tun node that all may open or with none; in a mount namespace of
 * its own (`unshare -m`), so that nothing outside changes.
 * `as-user.js <tun | no-tun> <program> <argument>...`
 */
import { execFileSync, spawn } from 'node:child_process';

/** nobody */
export const USER = 65534;

if (process.argv[1] === import.meta.filename) {
  const [, , node, program = '', ...args] = process.argv;
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', '/dev/net']);
  if (node === 'tun') execFileSync('mknod', ['-m', '666', '/dev/net/tun', 'c', '10', '200']);
  const child = spawn(program, args, { stdio: 'inherit', uid: USER, gid: USER });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  child.on('exit', (code) => process.exit(code ?? 255));
}
