/** Standard output of `overlayadm`, as fast as it is read. */
import { once } from 'node:events';

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // Whoever reads has seen enough, as `head` does.
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

export async function print(lines: readonly string[]): Promise<void> {
  if (lines.length > 0) await write(`${lines.join('\n')}\n`);
}

export async function write(text: string): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, 'drain');
}

/** Text of others in one line, without what a terminal would take for a command. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ');
}
