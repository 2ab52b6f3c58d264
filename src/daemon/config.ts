/** The daemon's settings: flags over the YAML file over the defaults. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { type Document, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { BANK_MAX } from '../../assembly/layout.js';
import { DEFAULT_SOCKET } from '../control/client.js';
import { memoryBytesNeeded } from '../datapath/memory.js';
import { OverlayError } from '../errors.js';
import { ARENAS_SPARE, BANK_DEFAULT, MEMORY_DEFAULT_BYTES, WORKERS_MAX } from '../limits.js';
import { allowedCpus } from '../sys/affinity.js';

export interface Config {
  readonly workers: number;
  readonly memoryBytes: number;
  /** Empty for any. */
  readonly pin: readonly number[];
  readonly bank: number;
  readonly socket: string;
  readonly stateDir: string;
  readonly logLevel: string;
  /** Lookup plugins to load: paths of modules, or names of packages. */
  readonly plugin: readonly string[];
}

/** sun_path less the NUL (man 7 unix); a longer path would be cut off silently. */
const SOCKET_PATH_BYTES_MAX = 107;
/** Room for target tables that the default leaves however many workers there are. */
const POOL_BYTES = 64 * 2 ** 20;
/** Each has a thread of its own. */
const PLUGINS_MAX = 16;
const logLevels = ['debug', 'info', 'warn', 'error'] as const;

const digits = z
  .string()
  .regex(/^\d{1,9}$/)
  .transform(Number);

/** 1 to `max`, in the file a number, in a flag its decimal digits. */
function whole(max: number) {
  return z.union([z.number(), digits], 'it is a whole number').pipe(z.number().int().min(1).max(max));
}

/** One schema for file and flags: both hold text or numbers. */
const schema = z.strictObject({
  workers: whole(WORKERS_MAX).default(Math.min(availableParallelism(), WORKERS_MAX)),
  memory: z
    .union([z.string(), z.number()])
    .transform((text, context) => sizeBytes(String(text)) ?? refuse(context, 'a size such as 256M or 1G'))
    .optional(),
  pin: z
    .union([z.string(), z.number()])
    .transform((text, context) => cpuList(String(text)) ?? refuse(context, 'a list of CPUs such as 0,2-3'))
    .default([]),
  bank: whole(BANK_MAX).default(BANK_DEFAULT),
  socket: z
    .string()
    .min(1)
    .refine(
      (path) => Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX,
      `it is at most ${SOCKET_PATH_BYTES_MAX} bytes`,
    )
    .default(DEFAULT_SOCKET),
  stateDir: z.string().min(1).default('/var/lib/overlayd'),
  logLevel: z.enum(logLevels).default('info'),
  plugin: z
    .union([z.string().min(1), z.array(z.string().min(1)).max(PLUGINS_MAX)])
    .transform((given) => [given].flat())
    .default([]),
});

export type Flags = Readonly<
  Partial<Record<Exclude<keyof z.input<typeof schema>, 'plugin'>, string> & { plugin: string[] }>
>;

/** Throws EINVAL naming the flag, or the file with line and column. */
export function readConfig(flags: Flags, file: string | undefined): Config {
  const fromFile = file === undefined ? {} : readFile(file);
  const parsed = schema.safeParse({ ...fromFile, ...flags });
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!;
    const key = String(path[0] ?? '');
    const flag = key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new OverlayError('EINVAL', 'bad_config', `--${flag}: ${message}`);
  }
  const { memory, ...rest } = parsed.data;
  const needed = memoryBytesNeeded(rest.workers + ARENAS_SPARE);
  const config = { ...rest, memoryBytes: memory ?? Math.max(MEMORY_DEFAULT_BYTES, needed + POOL_BYTES) };
  const missing = config.pin.filter((cpu) => !allowedCpus().includes(cpu));
  if (missing.length > 0) {
    throw new OverlayError('EINVAL', 'no_such_cpu', `--pin: this process has no CPU ${missing.join(', ')}`);
  }
  return config;
}

function readFile(file: string): object {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const { code = 'EIO', message } = error as NodeJS.ErrnoException;
    throw new OverlayError(code, 'config_unreadable', `the configuration cannot be read: ${message}`);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [syntax] = document.errors;
  if (syntax) throw atPlace(file, lines, syntax.pos[0], syntax.message.split('\n')[0]!);
  const values = valuesOf(file, lines, document);
  const parsed = schema.safeParse(values);
  if (parsed.success) return values as object;
  const issue = parsed.error.issues[0]!;
  const unknownKey = issue.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
  const path = unknownKey === undefined ? issue.path.map(String) : [...issue.path.map(String), unknownKey];
  throw atPlace(file, lines, offsetOf(document, path), `${path.join('.') || 'file'}: ${issue.message}`);
}

/** The document as plain values. Throws EINVAL for aliases that lead nowhere or unfold too far. */
function valuesOf(file: string, lines: LineCounter, document: Document.Parsed): unknown {
  try {
    return document.toJS() ?? {};
  } catch (error) {
    if (error instanceof ReferenceError) throw atPlace(file, lines, 0, error.message);
    throw error;
  }
}

function offsetOf(document: Document.Parsed, path: readonly string[]): number {
  const node = document.getIn(path, true) as { range?: [number, number, number] } | undefined;
  return node?.range?.[0] ?? 0;
}

function atPlace(file: string, lines: LineCounter, offset: number, what: string): OverlayError {
  const { line, col } = lines.linePos(offset);
  return new OverlayError('EINVAL', 'bad_config', `${file}:${line}:${col}: ${what}`);
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
