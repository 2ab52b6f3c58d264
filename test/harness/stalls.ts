/**
 * A lookup plugin that notes in a directory that it was imported or started, and does not get on with it while there is a
 * file that says so: `hold-import` for its import, `hold-start` for a start.
 */
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LookupPlugin } from '../../src/varpd/plugin.js';
import { dynamic } from '../plugins/make.js';

type Stage = 'import' | 'start';

/** For the module that `writeStalls` writes. */
export async function stalls(directory: string): Promise<LookupPlugin> {
  const stall = async (stage: Stage) => {
    appendFileSync(join(directory, stage), '.');
    while (existsSync(join(directory, `hold-${stage}`))) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  await stall('import');
  return dynamic('stalls', () => ({ start: () => stall('start') }));
}

/** What a test sees and holds of it. */
export class Stalls {
  readonly module: string;

  /** Writes the module of the plugin: its thread has no environment from which it could know the directory. */
  constructor(readonly directory: string) {
    this.module = join(directory, 'stalls.mjs');
    const text = `import { stalls } from ${JSON.stringify(import.meta.filename)};
      export const plugin = await stalls(${JSON.stringify(directory)});`;
    writeFileSync(this.module, text);
  }

  /** How often it has come to that. */
  count(stage: Stage): number {
    const file = join(this.directory, stage);
    return existsSync(file) ? readFileSync(file, 'utf8').length : 0;
  }

  hold(stage: Stage): void {
    writeFileSync(join(this.directory, `hold-${stage}`), '');
  }

  release(stage: Stage): void {
    rmSync(join(this.directory, `hold-${stage}`));
  }
}
