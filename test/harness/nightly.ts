/** `npm run nightly`: what takes too long for every change, one after another; each runs, whatever became of those before. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';

interface Step {
  readonly name: string;
  readonly words: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

const RUN = join(import.meta.dirname, '../run.js');
const SOAK = join(import.meta.dirname, '../../bench/soak.js');
const FILE_SECONDS = '7200';

const steps: readonly Step[] = [
  {
    name: 'lives of devices, and as many devices as there can be',
    words: [RUN, 'churn', 'two-hosts', 'chaos-daemon.js'],
    environment: { FILE_SECONDS, CYCLES: '10000', MANY_DEVICES: '1024' },
  },
  {
    name: 'every row of chaos 20 times',
    words: [RUN, 'chaos.js', 'chaos-daemon.js'],
    environment: { FILE_SECONDS, CHAOS_ROUNDS: '20' },
  },
  {
    name: 'attacks on the control socket, with 1,000 devices',
    words: [RUN, 'control-attack.js'],
    environment: { FILE_SECONDS, CONTROL_DEVICES: '1000' },
  },
  {
    name: 'a million unknown addresses in each lookup',
    words: [RUN, 'mac-flood.js'],
    environment: { FILE_SECONDS, MAC_FLOOD_FRAMES: '1000000' },
  },
  { name: 'planted faults', words: [join(import.meta.dirname, '../mutants/main.js')], environment: {} },
  {
    name: 'a minute of overload',
    words: [RUN, 'overload.js'],
    environment: { FILE_SECONDS, OVERLOAD_SECONDS: '60' },
  },
  { name: 'an hour of soak', words: [SOAK, '--minutes', '60'], environment: {} },
];

/** Prints what it prints, and gives its last line. */
function run({ words, environment }: Step): Promise<{ code: number; last: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--enable-source-maps', ...words], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...environment },
    });
    let last = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      process.stdout.write(text);
      last = `${last}${text}`.trimEnd().split('\n').pop() ?? '';
    });
    child.on('close', (code) => resolve({ code: code ?? 1, last }));
  });
}

const results: { name: string; code: number; text: string }[] = [];
for (const step of steps) {
  console.log(`\n== ${step.name}`);
  const begun = performance.now();
  const { code, last } = await run(step);
  const minutes = ((performance.now() - begun) / 60_000).toFixed(1);
  results.push({ name: step.name, code, text: `${last}; exit ${code}, ${minutes} min` });
}
console.log('\n== nightly');
for (const { name, text } of results) console.log(`${name}: ${text}`);
const failed = results.filter(({ code }) => code !== 0).length;
console.log(`${results.length - failed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
