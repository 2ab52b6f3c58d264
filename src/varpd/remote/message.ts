/** A message from a plugin's thread, read as unknown; undefined when it is none. */
import { type Fault, type FromThread, SERVICE_CALLS_MAX, TEXT_MAX } from './protocol.js';

type Fields = Readonly<Record<string, unknown>>;
/** Lines of one message. */
const LINES_MAX = 128;

/**
 * The outside of the message only: what an answer or a service call holds is read by whoever knows what it is to be.
 * A declaration is taken as it is: it is made before the plugin can have got at the channel.
 */
export function readMessage(message: unknown): FromThread | undefined {
  if (typeof message !== 'object' || message === null) return undefined;
  const { kind, ...rest } = message as Fields;
  switch (kind) {
    case 'declared':
    case 'refused':
      return message as FromThread;
    case 'pong':
      return typeof rest.usedBytes === 'number' ? (message as FromThread) : undefined;
    case 'answer':
      return Number.isSafeInteger(rest.call) ? (message as FromThread) : undefined;
    case 'failed':
      return Number.isSafeInteger(rest.call) && isFault(rest.fault) ? (message as FromThread) : undefined;
    case 'services':
      return Number.isSafeInteger(rest.session) &&
        isCount(rest.dropped) &&
        Array.isArray(rest.calls) &&
        rest.calls.length <= SERVICE_CALLS_MAX
        ? (message as FromThread)
        : undefined;
    case 'printed':
      return isCount(rest.dropped) &&
        Array.isArray(rest.lines) &&
        rest.lines.length <= LINES_MAX &&
        rest.lines.every(isText)
        ? (message as FromThread)
        : undefined;
    default:
      return undefined;
  }
}

function isFault(value: unknown): value is Fault {
  if (typeof value !== 'object' || value === null) return false;
  const { errno, code, message } = value as Fields;
  return isText(errno) && isText(code) && isText(message);
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= TEXT_MAX;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
