/** The demo's output: lines, and on a terminal one status line at the end that is written over. */

const out = process.stdout;
const COLUMNS_DEFAULT = 80;
let hasStatus = false;
let isMuted = false;

/** Prints lines as they are. */
export function print(...lines: readonly string[]): void {
  if (isMuted) return;
  clearStatus();
  for (const line of lines) out.write(`${line}\n`);
}

/** Begins a part of the demo. */
export function title(text: string): void {
  print('', `== ${text} ==`);
}

/** What is being done, and below it the command that does it, or that would do the same. */
export function step(text: string, ...commands: readonly string[]): void {
  print(`* ${text}`, ...commands.map((command) => `    ${command}`));
}

/** Prints text of several lines, further in. */
export function indented(text: string): void {
  for (const line of text.trimEnd().split('\n')) print(`  ${line}`.trimEnd());
}

/** True when a line can be written over. */
export function isTerminal(): boolean {
  return out.isTTY === true;
}

/** Shows a line that the next one, of either kind, replaces; only on a terminal. */
export function status(text: string): void {
  if (isMuted || !isTerminal()) return;
  clearStatus();
  // A line that wraps could not be written over.
  out.write(text.slice(0, (out.columns || COLUMNS_DEFAULT) - 1));
  hasStatus = true;
}

function clearStatus(): void {
  if (hasStatus) out.write('\r\u001b[2K');
  hasStatus = false;
}

/** From here on only last words are printed: what is being taken down may still have something to say. */
export function mute(): void {
  clearStatus();
  isMuted = true;
}

/** Prints a line even when muted. */
export function lastWords(text: string): void {
  clearStatus();
  out.write(`${text}\n`);
}
