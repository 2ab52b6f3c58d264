/** One run of the demo, what it printed, and whether anything of it is left in the system. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { USER } from './as-user.js';
import { until } from './hosts.js';

const dist = join(import.meta.dirname, '../..');
const AS_USER = join(import.meta.dirname, 'as-user.js');
const RUN_MS_MAX = 90_000;
const END_MS_MAX = 20_000;

/** As who the demo runs: as we do, or as an ordinary user with or without a tun node. */
export type Who = 'self' | 'user with tun' | 'user without tun';

export class DemoRun {
  readonly #directory = mkdtempSync(join(tmpdir(), 'overlayd-test-'));
  readonly #child: ChildProcess;
  readonly #linksBefore = ourLinks();
  readonly #closed: Promise<void>;
  output = '';

  constructor(who: Who, ...flags: readonly string[]) {
    // A temporary directory of its own: what is left in it, or has it in the environment, is of this run.
    chmodSync(this.#directory, 0o777);
    const env = { ...process.env, HOME: '/tmp', TMPDIR: this.#directory };
    const demo = [
      process.execPath,
      join(who === 'self' ? dist : readableDist(), 'src/demo/main.js'),
      ...flags,
    ];
    const node = who === 'user with tun' ? 'tun' : 'no-tun';
    const words = who === 'self' ? demo : ['unshare', '-m', '--', process.execPath, AS_USER, node, ...demo];
    this.#child = spawn(words[0]!, words.slice(1), { env, cwd: '/tmp', stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
    this.#closed = new Promise((resolve) => this.#child.once('close', () => resolve()));
  }

  /** Waits until the demo has printed `text`. */
  printed(text: string): Promise<void> {
    return until(`the demo prints '${text}', not only\n${this.output}`, RUN_MS_MAX, () => {
      if (this.#child.exitCode !== null) throw new Error(`the demo ended before '${text}':\n${this.output}`);
      return this.output.includes(text);
    });
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Ids of the processes of this run whose command line contains `text`. */
  pids(text = ''): number[] {
    const mark = `TMPDIR=${this.#directory}`;
    const all = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
    return all
      .filter((pid) => readProc(pid, 'environ').includes(mark) && readProc(pid, 'cmdline').includes(text))
      .map(Number);
  }

  /** Waits for its end; the exit code. A run that does not end is ended, and its code is that of a signal. */
  async end(): Promise<number> {
    const impatience = setTimeout(() => this.signal('SIGTERM'), RUN_MS_MAX);
    const end = setTimeout(() => this.#killAll(), RUN_MS_MAX + END_MS_MAX);
    await this.#closed;
    clearTimeout(impatience);
    clearTimeout(end);
    return this.#child.exitCode ?? -1;
  }

  /** What of the run is left: processes, links and files. Takes it away, too. */
  leftovers(): string[] {
    const processes = this.pids().map(
      (pid) => `process ${pid}: ${readProc(`${pid}`, 'cmdline').replaceAll('\0', ' ')}`,
    );
    const links = ourLinks().filter((name) => !this.#linksBefore.includes(name));
    const files = readdirSync(this.#directory);
    this.#killAll();
    rmSync(this.#directory, { recursive: true, force: true });
    return [...processes, ...links.map((name) => `link ${name}`), ...files.map((name) => `file ${name}`)];
  }

  #killAll(): void {
    for (const pid of this.pids()) process.kill(pid, 'SIGKILL');
  }
}

/** Names of links such as the demo makes, in the network namespace the test runs in. */
function ourLinks(): string[] {
  const names = readFileSync('/proc/net/dev', 'utf8').match(/^ *[^: ]+(?=:)/gm) ?? [];
  return names.map((name) => name.trim()).filter((name) => /^(overlay|underlay|probe)\d/.test(name));
}

/** Empty for a process that has gone. */
function readProc(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

let readable: string | undefined;

/** The built project where an ordinary user can read it: where it is, or a copy that is removed at exit. */
function readableDist(): string {
  readable ??= isReadable(dist) ? dist : copyOf(dist);
  return readable;
}

function isReadable(folder: string): boolean {
  const help = [join(folder, 'src/demo/main.js'), '--help'];
  return spawnSync(process.execPath, help, { uid: USER, gid: USER, cwd: '/', stdio: 'ignore' }).status === 0;
}

/** Without what only building and testing need. */
function copyOf(folder: string): string {
  const project = join(folder, '..');
  const copy = mkdtempSync(join(tmpdir(), 'overlayd-test-dist-'));
  process.on('exit', () => rmSync(copy, { recursive: true, force: true }));
  chmodSync(copy, 0o755);
  const { devDependencies } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8')) as {
    devDependencies: Record<string, string>;
  };
  const unwanted = Object.keys(devDependencies).map((name) => join(project, 'node_modules', name));
  for (const part of ['package.json', 'node_modules', 'dist/src', 'dist/workers', 'dist/assembly']) {
    cpSync(join(project, part), join(copy, part), {
      recursive: true,
      filter: (source) => !unwanted.includes(source),
    });
  }
  spawnSync('chmod', ['-R', 'a+rX', copy]);
  return join(copy, 'dist');
}

/** Why an ordinary user cannot have namespaces of their own here, or undefined. */
export function userNamespaceFault(): string | undefined {
  const result = spawnSync('unshare', ['-Urn', '--', 'true'], {
    uid: USER,
    gid: USER,
    cwd: '/',
    encoding: 'utf8',
  });
  return result.status === 0 ? undefined : (result.error?.message ?? result.stderr.trim());
}
