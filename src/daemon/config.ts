/** The daemon's settings: flags over the YAML file over the defaults. */
import { availableParallelism } from 'node:os';
import { z } from 'zod';
import { BANK_MAX, BATCH_MAX } from '../../assembly/layout.js';
import { ADMIN_SUFFIX, DEFAULT_SOCKET } from '../control/client.js';
import { groupOf } from '../control/groups.js';
import { memoryBytesNeeded } from '../datapath/memory.js';
import { workerCount } from '../datapath/workers.js';
import { OverlayError } from '../errors.js';
import {
  ARENAS_SPARE,
  BUSY_POLL_US_MAX,
  bankFor,
  MEMORY_DEFAULT_BYTES,
  RING_DEFAULT,
  RING_MAX,
  RING_MIN,
  TUNING_DEFAULT,
  WORKERS_MAX,
} from '../limits.js';
import { allowedCpus } from '../sys/affinity.js';
import { SOCKET_PATH_BYTES_MAX } from '../sys/unix-socket.js';
import { ConfigFile, FAULTS_MAX, type Fault, type Path } from './config-file.js';
import { checkDeclared, type DeclaredOverlays, declaredOverlays } from './declared.js';

export interface Config {
  readonly workers: number;
  /** Whether a worker is one thread for both directions, or one for each. */
  readonly threads: Threads;
  readonly memoryBytes: number;
  /** Empty for any. */
  readonly pin: readonly number[];
  readonly bank: number;
  /** Frames or messages of a batch. */
  readonly batch: number;
  /** Microseconds. */
  readonly busyPoll: number;
  /** Frames that a link keeps for each worker. */
  readonly ring: number;
  readonly socket: string;
  readonly stateDir: string;
  readonly logLevel: string;
  /** Lookup plugins to load: paths of modules, or names of packages. */
  readonly plugin: readonly string[];
  /** Permission bits of the control socket. */
  readonly socketMode: number;
  /** Group that owns the control socket. */
  readonly group?: string | number | undefined;
  /** Group whose members may change things, besides root and the daemon's user. */
  readonly adminGroup?: string | number | undefined;
  readonly overlays: DeclaredOverlays;
}

/** The second socket's name is longer. */
const PATH_BYTES_MAX = SOCKET_PATH_BYTES_MAX - Buffer.byteLength(ADMIN_SUFFIX);
/** Room for target tables that the default leaves however many workers there are. */
const POOL_BYTES = 64 * 2 ** 20;
/** Each has a thread of its own. */
const PLUGINS_MAX = 16;
/** Everyone may look. */
const SOCKET_MODE_DEFAULT = 0o666;
const threads = ['combined', 'split'] as const;
type Threads = (typeof threads)[number];
const logLevels = ['debug', 'info', 'warn', 'error'] as const;

const digits = z
  .string()
  .regex(/^\d{1,9}$/)
  .transform(Number);

/** 1 to `max`, in the file a number, in a flag its decimal digits. */
function whole(max: number, min = 1) {
  return z.union([z.number(), digits], 'it is a whole number').pipe(z.number().int().min(min).max(max));
}

/** A group of this system, as it is given: messages name it so. */
const group = z
  .union([z.string(), z.number()], 'it is a group, its name or number')
  .transform((given, context) => {
    try {
      groupOf(given);
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      context.addIssue({ code: 'custom', message: error.message });
    }
    return given;
  });

/** One schema for file and flags: both hold text or numbers. */
const schema = z.strictObject({
  workers: whole(WORKERS_MAX).default(Math.min(availableParallelism(), WORKERS_MAX)),
  threads: z.enum(threads).default('combined'),
  memory: z
    .union([z.string(), z.number()])
    .transform((text, context) => sizeBytes(String(text)) ?? refuse(context, 'a size such as 256M or 1G'))
    .optional(),
  pin: z
    .union([z.string(), z.number()])
    .transform((text, context) => cpuList(String(text)) ?? refuse(context, 'a list of CPUs such as 0,2-3'))
    .default([]),
  bank: whole(BANK_MAX).optional(),
  batch: whole(BATCH_MAX).default(TUNING_DEFAULT.batch),
  ring: whole(RING_MAX, RING_MIN).default(RING_DEFAULT),
  busyPoll: whole(BUSY_POLL_US_MAX, 0).default(TUNING_DEFAULT.busyPollUs),
  socket: z
    .string()
    .min(1)
    .refine((path) => Buffer.byteLength(path) <= PATH_BYTES_MAX, `it is at most ${PATH_BYTES_MAX} bytes`)
    .default(DEFAULT_SOCKET),
  stateDir: z.string().min(1).default('/var/lib/overlayd'),
  logLevel: z.enum(logLevels).default('info'),
  plugin: z
    .union([z.string().min(1), z.array(z.string().min(1)).max(PLUGINS_MAX)])
    .transform((given) => [given].flat())
    .default([]),
  // YAML reads 0660 as six hundred and sixty.
  socketMode: z
    .string("it is octal text in quotes, such as '0660'")
    .regex(/^0?[0-7]{3}$/, "it is octal text, such as '0660'")
    .transform((text) => Number.parseInt(text, 8))
    .default(SOCKET_MODE_DEFAULT),
  group: group.optional(),
  adminGroup: group.optional(),
  overlays: declaredOverlays,
});

export type Flags = Readonly<
  Partial<Record<Exclude<keyof z.input<typeof schema>, 'plugin' | 'overlays'>, string> & { plugin: string[] }>
>;

/** Every fault of the flags and the file, each with its place; or the settings. Throws what the file's reading gives. */
export function checkConfig(
  flags: Flags,
  file: string | undefined,
): { readonly config: Config } | { readonly faults: readonly Fault[] } {
  const source = file === undefined ? undefined : ConfigFile.read(file);
  if (source && source.faults.length > 0) return { faults: source.faults };
  const values = (source?.values ?? {}) as object;
  const inFile = (path: Path, text: string, code?: string) =>
    source!.fault(path, `${path.join('.') || 'file'}: ${text}`, code);
  const onLine = (path: Path, text: string, code = 'bad_config') => ({
    code,
    text: `--${String(path[0]).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}: ${text}`,
  });
  const faults = [...issuesOf(values).map(say(inFile)), ...issuesOf(flags).map(say(onLine))];
  if (faults.length > 0) return { faults: faults.slice(0, FAULTS_MAX) };
  const { memory, bank, ...rest } = schema.parse({ ...values, ...flags });
  const needed = memoryBytesNeeded(workerCount(rest.workers, rest.threads === 'split') + ARENAS_SPARE);
  const config = {
    ...rest,
    bank: bank ?? bankFor(rest.workers),
    memoryBytes: memory ?? Math.max(MEMORY_DEFAULT_BYTES, needed + POOL_BYTES),
  };
  const place = (key: keyof Flags) => (key in flags ? onLine : inFile);
  const missing = config.pin.filter((cpu) => !allowedCpus().includes(cpu));
  if (missing.length > 0) {
    faults.push(place('pin')(['pin'], `this process has no CPU ${missing.join(', ')}`, 'no_such_cpu'));
  }
  for (const { path, text } of checkDeclared(config.overlays, config.plugin.length > 0)) {
    faults.push(inFile(['overlays', ...path], text));
  }
  return faults.length > 0 ? { faults: faults.slice(0, FAULTS_MAX) } : { config };
}

/** The settings. Throws EINVAL naming the first fault, the others as its parts. */
export function readConfig(flags: Flags, file: string | undefined): Config {
  const checked = checkConfig(flags, file);
  if ('config' in checked) return checked.config;
  const [first, ...others] = checked.faults;
  throw new OverlayError(
    'EINVAL',
    first!.code,
    first!.text,
    others.map(({ text }) => text),
  );
}

interface Issue {
  readonly path: Path;
  readonly text: string;
}

function say(fault: (path: Path, text: string) => Fault): (issue: Issue) => Fault {
  return ({ path, text }) => fault(path, text);
}

/** What the schema says of the values, one for each key that it does not know. */
function issuesOf(values: object): Issue[] {
  const unsafe = pathOfProto(values, []);
  if (unsafe) return [{ path: unsafe, text: 'Unrecognized key' }];
  const parsed = schema.safeParse(values);
  if (parsed.success) return [];
  return parsed.error.issues.flatMap((issue) => {
    const path = issue.path as (string | number)[];
    if (issue.code !== 'unrecognized_keys') return [{ path, text: issue.message }];
    return issue.keys.map((key) => ({ path: [...path, key], text: `Unrecognized key: "${key}"` }));
  });
}

/** The deepest that a key of ours is; a value may hold itself by an alias. */
const KEYS_DEEP = 4;

/** A key called __proto__: the schema would pass over it in silence. */
function pathOfProto(value: unknown, path: Path): Path | undefined {
  if (typeof value !== 'object' || value === null || path.length >= KEYS_DEEP) return undefined;
  for (const [key, inner] of Object.entries(value)) {
    const at = [...path, key];
    if (key === '__proto__') return at;
    const found = pathOfProto(inner, at);
    if (found) return found;
  }
  return undefined;
}

function refuse(context: z.RefinementCtx, expected: string): never {
  context.addIssue({ code: 'custom', message: `it is ${expected}` });
  return z.NEVER;
}

const units: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** `256M` and the like, powers of 1024. */
function sizeBytes(text: string): number | undefined {
  const match = /^(\d{1,15})\s*([KMG]?)(?:i?B)?$/i.exec(text);
  if (!match) return undefined;
  return Number(match[1]) * units[match[2]!.toUpperCase()]!;
}

/** `0,2-3`. */
function cpuList(text: string): number[] | undefined {
  const cpus: number[] = [];
  for (const part of text.split(',')) {
    const match = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part.trim());
    if (!match) return undefined;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (last < first) return undefined;
    for (let cpu = first; cpu <= last; cpu++) cpus.push(cpu);
  }
  return cpus;
}
